# Retrieval: neighbours of each class's prompt, downloaded and filtered. What further augmentation ratios want comes on
# top of what the main one used.
RETRIEVAL_INPUTS = {
    "classes": rules.split_target.output.classes,
    "images": rules.split_target.output.images,
    "shards": lambda w: pool_shards(w.study) if study_of(w).pool.local else [],
    "head": lambda w: study_of(w).retrieval.aesthetic_model or [],
    "index": lambda w: index_folder(w.study),
    "clip": lambda w: clip_folder(w.study),
    "safety": lambda w: safety_folder(w.study),
    "web": lambda w: (
        rules.digits_web.output.web if study_of(w).pool.source == "digits" else []
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
        code=code("retrieval", "neighbours", "aesthetics", "web"),
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
