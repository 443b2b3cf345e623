# The retrieval pool in CLIP space; nothing runs here for an existing index or a pretrained CLIP.


rule train_clip:
    input:
        shards=lambda w: pool_shards(w.study),
    output:
        directory("results/{study}/clip"),
    params:
        seed=setting("seed"),
        train=setting("clip.train"),
        code=code("clip_training"),
    log:
        "results/{study}/logs/train_clip.log",
    benchmark:
        "results/{study}/benchmarks/clip/train.tsv"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    script:
        "../scripts/train_clip.py"


rule embed_pool:
    input:
        shards=lambda w: pool_shards(w.study),
        clip=lambda w: clip_folder(w.study),
    output:
        directory("results/{study}/pool/embeddings"),
    params:
        clip_model=lambda w: clip_model(w.study),
        code=code("pool"),
    log:
        "results/{study}/logs/embed_pool.log",
    benchmark:
        "results/{study}/benchmarks/pool/embed.tsv"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    script:
        "../scripts/embed_pool.py"


rule index_pool:
    input:
        rules.embed_pool.output,
    output:
        directory("results/{study}/pool/index"),
    params:
        exact=setting("pool.exact"),
        code=code("pool"),
    log:
        "results/{study}/logs/index_pool.log",
    benchmark:
        "results/{study}/benchmarks/pool/index.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    script:
        "../scripts/index_pool.py"
