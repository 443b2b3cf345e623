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
        "results/{study}/logs/cluster.log",
    benchmark:
        "results/{study}/benchmarks/finetune/clusters.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
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
    threads: 1
    resources:
        mem_mb=8000,
        runtime=5760,
        gpu=lambda w: study_of(w).finetune.processes,
    params:
        seed=setting("seed"),
        settings=setting("finetune"),
        method=row_of,
        save_minutes=setting("jobs.save_minutes"),
        code=code("finetuning", "distributed"),
    script:
        "../scripts/finetune.py"
