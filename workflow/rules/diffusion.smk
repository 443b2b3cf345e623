# VAE posteriors of the target, encoded once for every fine-tuning.


rule encode_latents:
    input:
        backbone="results/{study}/backbone",
        train="results/{study}/dataset/train.parquet",
        validation="results/{study}/dataset/validation.parquet",
    output:
        train="results/{study}/latents/train.safetensors",
        validation="results/{study}/latents/validation.safetensors",
    log:
        "results/{study}/logs/latents/encode.log",
    benchmark:
        "results/{study}/benchmarks/latents/encode.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: study_of(w).generate.threads
    resources:
        mem_mb=lambda w, input, attempt: costs.megabytes(
            4000,
            attempt,
            bytes=costs.latents(
                rows(input.train, input.validation), study_of(w).generate.image_size
            ),
        ),
        runtime=lambda w, input, attempt: costs.minutes(
            10 * costs.hashing(rows(input.train, input.validation)), attempt
        ),
        gpu=1,
    params:
        image_size=setting("generate.image_size"),
        mirrored=setting("finetune.horizontal_flip"),
        threads=setting("generate.threads"),
    script:
        "../scripts/encode_latents.py"


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
    script:
        "../scripts/finetune.py"


# Selection: a classifier on each candidate's first images; the best validation accuracy chooses.
# Those images are made by the rule generate.


rule screen:
    input:
        classes=rules.dataset.output.classes,
        train="results/{study}/dataset/train.parquet",
        validation="results/{study}/dataset/validation.parquet",
        finetuned=finetuned,
        images=lambda w: shards(w.study, w.method, "screen", "parquet"),
    output:
        "results/{study}/selection/{method}/part-{part}.json",
    log:
        "results/{study}/logs/screen/{method}-{part}.log",
    benchmark:
        "results/{study}/benchmarks/screen/{method}-{part}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: cpus(study_of(w).classifier)
    resources:
        mem_mb=lambda w, input, attempt: costs.megabytes(
            4000,
            attempt,
            bytes=classifier_bytes(w.study, 2 * rows(input.train)),
        ),
        runtime=lambda w, input, attempt: costs.minutes(
            screening_seconds(w, rows(input.train)), attempt
        ),
        gpu=lambda w: study_of(w).classifier.processes,
    params:
        seed=setting("seed"),
        settings=setting("classifier"),
        parts=lambda w: screening_jobs(w.study, w.method),
        save_minutes=setting("jobs.save_minutes"),
    script:
        "../scripts/screen.py"


rule select:
    input:
        screened=lambda w: [
            f"results/{w.study}/selection/{w.method}/part-{i}.json"
            for i in range(screening_jobs(w.study, w.method))
        ],
        finetuned=finetuned,
    output:
        "results/{study}/selection/{method}.json",
    log:
        "results/{study}/logs/screen/select-{method}.log",
    benchmark:
        "results/{study}/benchmarks/screen/select-{method}.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(500, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=10),
    params:
        grid=setting("finetune.grid"),
    script:
        "../scripts/select.py"


# Generation: one job takes a stretch of a method's images and writes one shard. Of a fine-tuned method first the images
# by which its candidates are compared (screen), then the rest of those of the chosen one (selected). What further ratios
# want beyond the main one's images comes on top (further).


rule generate:
    input:
        backbone="results/{study}/backbone",
        classes=rules.dataset.output.classes,
        train=lambda w: (
            "results/{study}/dataset/train.parquet"
            if METHODS[w.method].start.begins_from_images
            else []
        ),
        latents=lambda w: (
            rules.encode_latents.output.train
            if METHODS[w.method].start.begins_from_images
            else []
        ),
        selection=lambda w: (
            rules.select.output[0]
            if trained(w.method) and w.candidate in ("selected", "further")
            else []
        ),
        finetuned=finetuned,
        clusters=clusters_of,
    output:
        shard="results/{study}/images/{method}/{candidate}/shard-{shard}.tar",
        images="results/{study}/images/{method}/{candidate}/shard-{shard}.parquet",
    log:
        "results/{study}/logs/generate/{method}-{candidate}-{shard}.log",
    benchmark:
        "results/{study}/benchmarks/generate/{method}-{candidate}-{shard}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: study_of(w).generate.threads
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(6000, attempt),
        runtime=lambda w, input, attempt: costs.minutes(
            sampling_seconds(
                w.study,
                images_to_generate(w, input.classes) / generation_jobs(w.study),
            ),
            attempt,
        ),
        gpu=1,
    params:
        seed=setting("seed"),
        settings=setting("generate"),
        method=row_of,
        times=lambda w: study_of(w).main_times,
        ratio=lambda w: study_of(w).main_ratio,
        further=lambda w: (
            further_ratio(w.study, w.method) if w.candidate == "further" else None
        ),
        parts=lambda w: generation_jobs(w.study),
    script:
        "../scripts/generate.py"
