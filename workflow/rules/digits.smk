# The digits world: a target and a captioned web, made here (DESIGN of the default study).


rule digits_target:
    output:
        folder=directory(ANY.digits("target")),
        classes=ANY.digits("classes.csv"),
    log:
        "results/{study}/logs/digits/target.log",
    benchmark:
        "results/{study}/benchmarks/digits/target.tsv"
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("digits_target"),
    params:
        seed=setting("seed"),
        test=setting("digits.test"),
        web_scans=setting("digits.web_scans"),
    message:
        "{wildcards.study}: make the target of the digits world"
    script:
        "../scripts/digits_target.py"


# `planted` is the ground truth of the web, for tests only: no rule may take it as an input.
rule digits_web:
    output:
        shard=ANY.digits("web.tar"),
        web=ANY.digits("web.parquet"),
        planted=ANY.digits("planted.parquet"),
    log:
        "results/{study}/logs/digits/web.log",
    benchmark:
        "results/{study}/benchmarks/digits/web.tsv"
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("digits_web"),
    params:
        seed=setting("seed"),
        digits=setting("digits"),
    message:
        "{wildcards.study}: make the captioned web of the digits world"
    script:
        "../scripts/digits_web.py"
