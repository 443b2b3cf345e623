# The retrieval pool in CLIP space; nothing runs here for an existing index or a pretrained CLIP.
from augbench.retrieval.pools import states


rule train_clip:
    input:
        shards=lambda w: files_of(w).pool_shards,
    output:
        directory(ANY.model("clip")),
    log:
        "results/{study}/logs/clip/train.log",
    benchmark:
        "results/{study}/benchmarks/clip/train.tsv"
    priority: 1  # most of a study waits for it
    conda:
        "../../envs/augbench.yaml"
    threads: setting("clip.train.threads")
    resources:
        **needs("train_clip"),
        gpu=1,
    params:
        seed=setting("seed"),
        train=setting("clip.train"),
        data=data_in("pool"),
    message:
        "{wildcards.study}: train CLIP on the pool"
    script:
        "../scripts/train_clip.py"


# The images are too many to be inputs; which they are is a parameter instead.
rule pack_pool:
    output:
        ANY.pool_shard("{part}"),
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
        **needs("pack_pool"),
    params:
        images=lambda w: states(files_of(w).images_of_pool_shard(w.part)),
        captions=lambda w: (
            user_data.captions(files_of(w).images_of_pool_shard(w.part)) if workflow.is_main_process else None
        ),
        max_image_size=setting("retrieval.max_image_size"),
        max_pixels=setting("retrieval.max_pixels"),
    message:
        "{wildcards.study}: pack images of the pool's folder into shard {wildcards.part}"
    script:
        "../scripts/pack_pool.py"


rule download_pool:
    input:
        lambda w: files_of(w).pool_files,
    output:
        shard=ANY.pool_shard("{part}"),
        ledger=ANY.pool_shard("{part}", "parquet"),
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
        **needs("download_pool"),
    params:
        size=setting("jobs.images_per_shard"),
        settings=setting("retrieval"),
        columns=setting("pool.columns"),
        data=data_in("pool"),
    message:
        "{wildcards.study}: download images of the pool into shard {wildcards.part}"
    script:
        "../scripts/download_pool.py"


rule embed_pool:
    input:
        shards=lambda w: files_of(w).pool_shards,
        clip=lambda w: files_of(w).clip,
    output:
        directory(ANY.pool_embeddings("{part}")),
    log:
        "results/{study}/logs/pool/embed-{part}.log",
    benchmark:
        "results/{study}/benchmarks/pool/embed-{part}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        **needs("embed_pool"),
        gpu=1,
    params:
        clip_model=lambda w: files_of(w).clip_name,
        local=lambda w: study_of(w).pool.source.is_local,
        shards_per_job=setting("jobs.shards_per_embedding"),
        columns=setting("pool.columns"),
        data=data_in("pool", "clip"),
    message:
        "{wildcards.study}: embed the pool with CLIP, part {wildcards.part}"
    script:
        "../scripts/embed_pool.py"


rule index_pool:
    input:
        lambda w: [ANY.pool_embeddings(part) for part in range(files_of(w).embedding_jobs)],
    output:
        directory(ANY.pool_index),
    log:
        "results/{study}/logs/pool/index.log",
    benchmark:
        "results/{study}/benchmarks/pool/index.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        **needs("index_pool"),
    params:
        exact=setting("pool.exact"),
        memory=setting("pool.memory"),
    message:
        "{wildcards.study}: index the pool's embeddings"
    script:
        "../scripts/index_pool.py"


# For methods that match captions: a full-text index of the metadata, whatever index the vectors have.
rule index_captions:
    input:
        pool_index,
    output:
        ANY.pool_captions,
    log:
        "results/{study}/logs/pool/captions.log",
    benchmark:
        "results/{study}/benchmarks/pool/captions.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        **needs("index_captions"),
    params:
        pool=setting("pool"),
        data=data_in("pool"),
    message:
        "{wildcards.study}: index the pool's captions"
    script:
        "../scripts/index_captions.py"


# Retrieval: neighbours of each class's prompt, downloaded and filtered. What further augmentation ratios want comes on
# top of what the main one used.
RETRIEVAL_INPUTS = {
    "classes": rules.split_target.output.classes,
    "images": rules.split_target.output.images,
    "shards": lambda w: files_of(w).pool_shards if study_of(w).pool.source.is_local else [],
    "head": lambda w: study_of(w).retrieval.aesthetic_model or [],
    "index": pool_index,
    "captions": lambda w: files_of(w).captions_of(w.method),
    "clip": lambda w: files_of(w).clip,
    "safety": lambda w: files_of(w).safety,
    "web": lambda w: rules.digits_web.output.web if study_of(w).pool.source.is_built_in else [],
}


rule retrieve:
    input:
        **RETRIEVAL_INPUTS,
    output:
        ledger=ANY.retrieval("{method}", "ledger.parquet"),
        shard=ANY.retrieved("{method}", "tar"),
        images=ANY.retrieved("{method}", "parquet"),
        funnel=ANY.retrieval("{method}", "funnel.csv"),
        hosts=ANY.retrieval("{method}", "hosts.csv"),
    log:
        "results/{study}/logs/retrieve/{method}.log",
    benchmark:
        "results/{study}/benchmarks/retrieve/{method}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: setting("retrieval.threads")
    resources:
        **needs("retrieve"),
        gpu=lambda w: int(study_of(w).retrieval.gpu),
    params:
        settings=setting("retrieval"),
        pool=setting("pool"),
        ratio=setting("main_ratio"),
        fill_to=setting("dataset.fill_to"),
        method=method_row,
        clip_model=lambda w: files_of(w).clip_name,
        data=data_in("pool", "clip", "aesthetic_model"),
    message:
        "{wildcards.study}: retrieve the images of {wildcards.method} from the pool"
    script:
        "../scripts/retrieve.py"


use rule retrieve as retrieve_further with:
    input:
        **RETRIEVAL_INPUTS,
        kept=ANY.classes,
        main=rules.retrieve.output.ledger,
    output:
        ledger=ANY.retrieval("{method}", "ledger.parquet", further=True),
        shard=ANY.retrieved("{method}", "tar", further=True),
        images=ANY.retrieved("{method}", "parquet", further=True),
        funnel=ANY.retrieval("{method}", "funnel.csv", further=True),
        hosts=ANY.retrieval("{method}", "hosts.csv", further=True),
    log:
        "results/{study}/logs/retrieve/{method}-further.log",
    benchmark:
        "results/{study}/benchmarks/retrieve/{method}-further.tsv"
    resources:
        **needs("retrieve_further"),
        gpu=lambda w: int(study_of(w).retrieval.gpu),
    params:
        ratio=lambda w: files_of(w).further_ratio(w.method),
    message:
        "{wildcards.study}: retrieve what further ratios of {wildcards.method} need"
