# The domain gap between added and real images, judged by a classifier of real images that no method adds or starts from.


rule judge:
    input:
        classes="results/{study}/dataset/classes.csv",
        reserve=lambda w: [
            f"results/{w.study}/dataset/{split}.parquet"
            for split in ("unused", "more_real")
            if not starts(w.study, split)
        ],
        validation="results/{study}/dataset/validation.parquet",
        test="results/{study}/dataset/test.parquet",
    output:
        metrics="results/{study}/domain_gap/judge/metrics.json",
        weights="results/{study}/domain_gap/judge/best.safetensors",
    log:
        "results/{study}/logs/domain_gap/judge.log",
    benchmark:
        "results/{study}/benchmarks/domain_gap/judge.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: cpus(study_of(w).classifier)
    resources:
        mem_mb=lambda w, input, attempt: costs.megabytes(
            4000,
            attempt,
            bytes=classifier_bytes(w.study, rows(*input.reserve, input.validation)),
        ),
        runtime=lambda w, input, attempt: costs.minutes(
            classifier_seconds(w.study, rows(*input.reserve, input.validation), 1),
            attempt,
        ),
        gpu=lambda w: study_of(w).classifier.processes,
    params:
        seed=setting("seed"),
        settings=setting("classifier"),
        save_minutes=setting("jobs.save_minutes"),
        code=code("domain_gap", "classifier", "distributed"),
    script:
        "../scripts/judge.py"


rule domain_gap:
    input:
        classes="results/{study}/dataset/classes.csv",
        test="results/{study}/dataset/test.parquet",
        metrics=rules.judge.output.metrics,
        weights=rules.judge.output.weights,
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
        classifier=setting("classifier"),
        code=code("domain_gap", "classifier"),
    script:
        "../scripts/domain_gap.py"
