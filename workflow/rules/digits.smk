# The digits world: a target and a captioned web, made here (DESIGN of the default study).


rule digits_target:
    output:
        folder=directory("results/{study}/digits/target"),
        classes="results/{study}/digits/classes.csv",
    log:
        "results/{study}/logs/digits/target.log",
    benchmark:
        "results/{study}/benchmarks/digits/target.tsv"
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(1000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=10),
    params:
        seed=setting("seed"),
        test=setting("digits.test"),
        web_scans=setting("digits.web_scans"),
    script:
        "../scripts/digits_target.py"


# `planted` is the ground truth of the web, for tests only: no rule may take it as an input.
rule digits_web:
    output:
        shard="results/{study}/digits/web.tar",
        web="results/{study}/digits/web.parquet",
        planted="results/{study}/digits/planted.parquet",
    log:
        "results/{study}/logs/digits/web.log",
    benchmark:
        "results/{study}/benchmarks/digits/web.tsv"
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(1000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=10),
    params:
        seed=setting("seed"),
        digits=setting("digits"),
    script:
        "../scripts/digits_web.py"
