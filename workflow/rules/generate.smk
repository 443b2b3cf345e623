# Generation: one job takes a stretch of the classes and writes one shard.


rule generate:
    input:
        backbone="results/{study}/backbone",
        classes=rules.dataset.output.classes,
    output:
        shard="results/{study}/images/{method}/{candidate}/shard-{shard}.tar",
        images="results/{study}/images/{method}/{candidate}/shard-{shard}.parquet",
    log:
        "results/{study}/logs/generate/{method}-{candidate}-{shard}.log",
    benchmark:
        "results/{study}/benchmarks/generate/{method}-{candidate}-{shard}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=1440,
    params:
        seed=setting("seed"),
        settings=setting("generate"),
        conditioning=lambda w: METHODS[w.method].conditioning,
        classes_per_job=lambda w: classes_per_job(w.study),
        code=code("sampling"),
    script:
        "../scripts/generate.py"
