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
        code=code("clip_training"),
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
        study=pools("folder"),
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
        code=code("pool"),
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
        study=pools("urls"),
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
        code=code("pool"),
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
        local=lambda w: study_of(w).pool.local,
        shards_per_job=setting("jobs.shards_per_embedding"),
        code=code("pool"),
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
        code=code("pool"),
    script:
        "../scripts/index_pool.py"
