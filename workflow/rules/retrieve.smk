# Retrieval: neighbours of each class's prompt, downloaded and filtered.


rule retrieve:
    input:
        classes=rules.split_target.output.classes,
        images=rules.split_target.output.images,
        index=lambda w: index_folder(w.study),
        clip=lambda w: clip_folder(w.study),
        safety=lambda w: safety_folder(w.study),
        web=lambda w: (
            rules.digits_web.output.web if study_of(w).pool.source == "digits" else []
        ),
    output:
        ledger="results/{study}/retrieval/ledger.parquet",
        shard="results/{study}/retrieval/images.tar",
        images="results/{study}/retrieval/images.parquet",
    log:
        "results/{study}/logs/retrieve.log",
    benchmark:
        "results/{study}/benchmarks/retrieve/all.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=2880,
    params:
        settings=setting("retrieval"),
        pool=setting("pool"),
        ratio=lambda w: max(study_of(w).ratios),
        conditioning=lambda w: METHODS[starts(w.study, "pool")[0]].conditioning,
        clip_model=lambda w: clip_model(w.study),
        code=code("retrieval", "neighbours", "web"),
    script:
        "../scripts/retrieve.py"
