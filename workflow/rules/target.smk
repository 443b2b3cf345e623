# The target: all labelled images and their splits, before retrieval says which classes stay.


rule split_target:
    input:
        lambda w: (
            [rules.digits_target.output.folder]
            if study_of(w).target.reader == "digits"
            else []
        ),
        lambda w: target_of(w.study).classes or [],
    output:
        classes="results/{study}/target/classes.csv",
        images="results/{study}/target/images.parquet",
    log:
        "results/{study}/logs/dataset/split.log",
    benchmark:
        "results/{study}/benchmarks/dataset/split.tsv"
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=60),
    params:
        target=lambda w: target_of(w.study).model_dump(),
        dataset=setting("dataset"),
        seed=setting("seed"),
        code=code("target"),
    script:
        "../scripts/split_target.py"
