# Fine-tuning: what a method trains on the target, once per learning rate.


rule cluster:
    input:
        train="results/{study}/dataset/train.parquet",
        validation="results/{study}/dataset/validation.parquet",
        clip=lambda w: (
            clip_folder(w.study) if study_of(w).finetune.embedding == "clip" else []
        ),
    output:
        "results/{study}/finetune/clusters.parquet",
    log:
        "results/{study}/logs/finetune/clusters.log",
    benchmark:
        "results/{study}/benchmarks/finetune/clusters.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(4000, attempt),
        runtime=lambda w, input, attempt: costs.minutes(
            costs.hashing(rows(input.train, input.validation)), attempt
        ),
        gpu=1,
    params:
        seed=setting("seed"),
        embedding=setting("finetune.embedding"),
        clip_model=lambda w: clip_model(w.study) if study_of(w).clip else None,
        counts=lambda w: clustered(w.study),
        code=code("clusters"),
    script:
        "../scripts/cluster.py"


# The state that a killed job goes on from lies beside the output, in a folder that is not declared.
rule finetune:
    input:
        backbone="results/{study}/backbone",
        classes=rules.dataset.output.classes,
        train="results/{study}/dataset/train.parquet",
        validation="results/{study}/dataset/validation.parquet",
        train_latents=rules.encode_latents.output.train,
        validation_latents=rules.encode_latents.output.validation,
        clusters=clusters_of,
    output:
        directory("results/{study}/finetune/{method}/lr-{rate}"),
    log:
        "results/{study}/logs/finetune/{method}-lr-{rate}.log",
    benchmark:
        "results/{study}/benchmarks/finetune/{method}-lr-{rate}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: cpus(study_of(w).finetune)
    resources:
        mem_mb=lambda w, input, attempt: costs.megabytes(
            8000,
            attempt,
            bytes=study_of(w).finetune.processes
            * costs.latents(
                rows(input.train, input.validation), study_of(w).generate.image_size
            ),
        ),
        runtime=lambda w, input, attempt: costs.minutes(
            finetuning_seconds(w, rows(input.train)), attempt
        ),
        gpu=lambda w: study_of(w).finetune.processes,
    params:
        seed=setting("seed"),
        settings=setting("finetune"),
        method=row_of,
        save_minutes=setting("jobs.save_minutes"),
        code=code("finetuning", "distributed"),
    script:
        "../scripts/finetune.py"
