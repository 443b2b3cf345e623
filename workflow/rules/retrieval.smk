# The retrieval pool in CLIP space; nothing runs here for an existing index or a pretrained CLIP.


rule train_clip:
    input:
        shards=lambda w: pool_shards(w.study),
    output:
        directory("results/{study}/clip"),
    log:
        "results/{study}/logs/clip/train.log",
    benchmark:
        "results/{study}/benchmarks/clip/train.tsv"
    priority: 1  # most of a study waits for it
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: study_of(w).clip.train.threads
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(3000, attempt),
        runtime=lambda w, attempt: costs.minutes(
            costs.training(*training_of(w, "clip", "")), attempt
        ),
        gpu=1,
    params:
        seed=setting("seed"),
        train=setting("clip.train"),
    script:
        "../scripts/train_clip.py"


# The images are too many to be inputs; which they are is a parameter instead.
rule pack_pool:
    output:
        "results/{study}/pool/shards/{part}.tar",
    log:
        "results/{study}/logs/pool/pack-{part}.log",
    benchmark:
        "results/{study}/benchmarks/pool/pack-{part}.tsv"
    wildcard_constraints:
        study=packed_pools(downloads=False),
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(
            costs.hashing(study_of(w).jobs.images_per_shard), attempt
        ),
    params:
        images=shard_images,
        max_image_size=setting("retrieval.max_image_size"),
        max_pixels=setting("retrieval.max_pixels"),
    script:
        "../scripts/pack_pool.py"


rule download_pool:
    input:
        lambda w: pool_files(w.study),
    output:
        shard="results/{study}/pool/shards/{part}.tar",
        ledger="results/{study}/pool/shards/{part}.parquet",
    log:
        "results/{study}/logs/pool/download-{part}.log",
    benchmark:
        "results/{study}/benchmarks/pool/download-{part}.tsv"
    wildcard_constraints:
        study=packed_pools(downloads=True),
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(
            costs.retrieval(study_of(w).jobs.images_per_shard), attempt
        ),
    params:
        size=setting("jobs.images_per_shard"),
        settings=setting("retrieval"),
    script:
        "../scripts/download_pool.py"


rule embed_pool:
    input:
        shards=lambda w: pool_shards(w.study),
        clip=lambda w: clip_folder(w.study),
    output:
        directory("results/{study}/pool/embeddings/{part}"),
    log:
        "results/{study}/logs/pool/embed-{part}.log",
    benchmark:
        "results/{study}/benchmarks/pool/embed-{part}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(4000, attempt),
        runtime=lambda w, attempt: costs.minutes(
            costs.hashing(embedded_images(w.study)), attempt
        ),
        gpu=1,
    params:
        clip_model=lambda w: clip_model(w.study),
        local=lambda w: study_of(w).pool.source.is_local,
        shards_per_job=setting("jobs.shards_per_embedding"),
    script:
        "../scripts/embed_pool.py"


rule index_pool:
    input:
        lambda w: [
            f"results/{w.study}/pool/embeddings/{part}"
            for part in range(embedding_jobs(w.study))
        ],
    output:
        directory("results/{study}/pool/index"),
    log:
        "results/{study}/logs/pool/index.log",
    benchmark:
        "results/{study}/benchmarks/pool/index.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(
            2000, attempt, bytes=2 * size_of(study_of(w).pool.memory)
        ),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=240),
    params:
        exact=setting("pool.exact"),
        memory=setting("pool.memory"),
    script:
        "../scripts/index_pool.py"


# Retrieval: neighbours of each class's prompt, downloaded and filtered. What further augmentation ratios want comes on
# top of what the main one used.
RETRIEVAL_INPUTS = {
    "classes": rules.split_target.output.classes,
    "images": rules.split_target.output.images,
    "shards": lambda w: (
        pool_shards(w.study) if study_of(w).pool.source.is_local else []
    ),
    "head": lambda w: study_of(w).retrieval.aesthetic_model or [],
    "index": lambda w: index_folder(w.study),
    "clip": lambda w: clip_folder(w.study),
    "safety": lambda w: safety_folder(w.study),
    "web": lambda w: (
        rules.digits_web.output.web if study_of(w).pool.source.is_built_in else []
    ),
}


rule retrieve:
    input:
        **RETRIEVAL_INPUTS,
    output:
        ledger="results/{study}/retrieval/{method}/ledger.parquet",
        shard="results/{study}/retrieval/{method}/images.tar",
        images="results/{study}/retrieval/{method}/images.parquet",
        funnel="results/{study}/retrieval/{method}/funnel.csv",
    log:
        "results/{study}/logs/retrieve/{method}.log",
    benchmark:
        "results/{study}/benchmarks/retrieve/{method}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(4000, attempt),  # as in the paper
        runtime=lambda w, input, attempt: costs.minutes(
            costs.retrieval(study_of(w).main_ratio * rows(input.images)), attempt
        ),
    params:
        settings=setting("retrieval"),
        pool=setting("pool"),
        ratio=lambda w: study_of(w).main_ratio,
        method=row_of,
        clip_model=lambda w: clip_model(w.study),
    script:
        "../scripts/retrieve.py"


use rule retrieve as retrieve_further with:
    input:
        **RETRIEVAL_INPUTS,
        kept="results/{study}/dataset/classes.csv",
        main=rules.retrieve.output.ledger,
    output:
        ledger="results/{study}/retrieval/{method}/further/ledger.parquet",
        shard="results/{study}/retrieval/{method}/further/images.tar",
        images="results/{study}/retrieval/{method}/further/images.parquet",
        funnel="results/{study}/retrieval/{method}/further/funnel.csv",
    log:
        "results/{study}/logs/retrieve/{method}-further.log",
    benchmark:
        "results/{study}/benchmarks/retrieve/{method}-further.tsv"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(4000, attempt),
        runtime=lambda w, input, attempt: costs.minutes(
            costs.retrieval(further_ratio(w.study, w.method) * rows(input.images)),
            attempt,
        ),
    params:
        ratio=lambda w: further_ratio(w.study, w.method),
