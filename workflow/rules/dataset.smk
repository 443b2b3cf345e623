# The data set of the study: the splits of the classes that retrieval could fill.


rule dataset:
    input:
        classes=rules.split_target.output.classes,
        images=rules.split_target.output.images,
        ledgers=lambda w: ledgers(w.study),
    output:
        classes="results/{study}/dataset/classes.csv",
        splits=expand("results/{{study}}/dataset/{split}.parquet", split=target.SPLITS),
    log:
        "results/{study}/logs/dataset/dataset.log",
    benchmark:
        "results/{study}/benchmarks/dataset/dataset.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=30),
    params:
        images_per_class=setting("retrieval.images_per_class"),
        ratio=lambda w: study_of(w).main_ratio,
        titles=lambda w: [METHODS[method].title for method in starts(w.study, "pool")],
        code=code("target", "retrieval"),
    script:
        "../scripts/dataset.py"
