# The domain gap between added and real images, judged by a classifier of real images.


rule domain_gap:
    input:
        classes="results/{study}/dataset/classes.csv",
        test="results/{study}/dataset/test.parquet",
        weights=lambda w: f"results/{w.study}/classifier/{judge(w.study)}/x{ratios(w.study, judge(w.study))[0]}/run-1/best.safetensors",
        added=lambda w: [
            f"results/{w.study}/augmentation/{method}/x{ratios(w.study, method)[0]}/split-{k}.parquet"
            for method in adding(w.study)
            for k in range(1, study_of(w).runs + 1)
        ],
    output:
        report(
            "results/{study}/tables/domain_gap.csv",
            category="Tables",
            caption="../report/domain_gap.rst",
            labels={"study": "{study}", "table": "domain gap"},
        ),
    log:
        "results/{study}/logs/domain_gap/domain_gap.log",
    benchmark:
        "results/{study}/benchmarks/domain_gap/domain_gap.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(4000, attempt),
        runtime=lambda w, input, attempt: costs.minutes(
            costs.hashing(rows(input.test, *input.added)), attempt
        ),
        gpu=1,
    params:
        judge=lambda w: judge(w.study),
        classifier=setting("classifier"),
        code=code("domain_gap", "classifier"),
    script:
        "../scripts/domain_gap.py"
