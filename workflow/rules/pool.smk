# The retrieval pool in CLIP space; nothing runs here for an existing index or a pretrained CLIP.


rule train_clip:
    input:
        shards=lambda w: pool_shards(w.study),
    output:
        directory("results/{study}/clip"),
    log:
        "results/{study}/logs/train_clip.log",
    benchmark:
        "results/{study}/benchmarks/clip/train.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        seed=setting("seed"),
        train=setting("clip.train"),
        code=code("clip_training"),
    script:
        "../scripts/train_clip.py"


rule embed_pool:
    input:
        shards=lambda w: pool_shards(w.study),
        clip=lambda w: clip_folder(w.study),
    output:
        directory("results/{study}/pool/embeddings/{part}"),
    log:
        "results/{study}/logs/embed_pool/{part}.log",
    benchmark:
        "results/{study}/benchmarks/pool/embed-{part}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    params:
        clip_model=lambda w: clip_model(w.study),
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
        "results/{study}/logs/index_pool.log",
    benchmark:
        "results/{study}/benchmarks/pool/index.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        exact=setting("pool.exact"),
        memory=setting("pool.memory"),
        code=code("pool"),
    script:
        "../scripts/index_pool.py"
