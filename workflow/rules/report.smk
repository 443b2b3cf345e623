# The domain gap between added and real images, judged by a classifier of real images that no method adds or starts from.


rule judge:
    input:
        classes="results/{study}/dataset/classes.csv",
        reserve=lambda w: [
            f"results/{w.study}/dataset/{split}.parquet"
            for split in ("unused", "more_real")
            if split not in added_splits(w.study)
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
        methods=lambda w: adding(w.study),
    script:
        "../scripts/domain_gap.py"


# Summaries, Table 1 and the report.


rule summary:
    input:
        metrics=lambda w: [
            f"results/{w.study}/classifier/{w.method}/x{ratio}/run-{k}/metrics.json"
            for ratio in ratios(w.study, w.method)
            for k in range(1, study_of(w).runs + 1)
        ],
        added=lambda w: added_tables(w) if w.method in adding(w.study) else [],
        train="results/{study}/dataset/train.parquet",
        test="results/{study}/dataset/test.parquet",
        audit=lambda w: (
            rules.audit.output.summary if w.method in adding(w.study) else []
        ),
    output:
        "results/{study}/summary/{method}.json",
    log:
        "results/{study}/logs/report/summary-{method}.log",
    benchmark:
        "results/{study}/benchmarks/report/summary-{method}.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=10),
    params:
        method=lambda w: METHODS[w.method].model_dump(),
        ratios=lambda w: ratios(w.study, w.method),
        classifier=setting("classifier"),
    script:
        "../scripts/summary.py"


rule tables:
    input:
        summaries=lambda w: expand(
            "results/{study}/summary/{method}.json",
            method=study_of(w).methods,
            allow_missing=True,
        ),
        predictions=main_predictions,
        paper="resources/paper_results.csv",
    output:
        table1=report(
            "results/{study}/tables/table1.csv",
            category="Tables",
            caption="../report/table1.rst",
            labels={"study": "{study}", "table": "1"},
        ),
        scaling="results/{study}/tables/scaling.csv",
        differences=report(
            "results/{study}/tables/differences.csv",
            category="Tables",
            caption="../report/differences.rst",
            labels={"study": "{study}", "table": "differences"},
        ),
    log:
        "results/{study}/logs/report/tables.log",
    benchmark:
        "results/{study}/benchmarks/report/tables.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(1000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=10),
    params:
        dataset=lambda w: plan(w.study).dataset,
        methods=lambda w: study_of(w).methods,
    script:
        "../scripts/tables.py"


rule per_class:
    input:
        main_predictions,
    output:
        accuracies="results/{study}/tables/per_class.csv",
        confusions="results/{study}/tables/confusions.csv",
    log:
        "results/{study}/logs/report/per_class.log",
    benchmark:
        "results/{study}/benchmarks/report/per_class.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(1000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=10),
    params:
        methods=lambda w: study_of(w).methods,
    script:
        "../scripts/per_class.py"


# A study's section of the report, its figures and its table of costs.
rule study_page:
    input:
        lambda w: leaves(report_files(w.study)),
    output:
        page=report(
            "results/{study}/report.html",
            category="Report",
            caption="../report/report.rst",
            labels={"study": "{study}"},
        ),
        section="results/{study}/page.json",
        compute="results/{study}/tables/compute.csv",
        # A folder, for a configuration with fewer figures leaves none of another's there.
        figures=report(
            directory("results/{study}/figures"),
            patterns=[f"{{figure}}.{kind}" for kind in FIGURE_FILES],
            category="Figures",
            caption="../report/figures.rst",
            labels={"study": "{study}", "figure": "{figure}"},
        ),
    log:
        "results/{study}/logs/report.log",
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=30),
    params:
        study=lambda w: study_of(w).model_dump(exclude={"jobs"}),
        methods=lambda w: {
            method: METHODS[method].model_dump() for method in study_of(w).methods
        },
        files=lambda w: report_files(w.study),
        jobs=lambda w: measured_jobs(w.study),
    script:
        "../scripts/study_page.py"


# The page that joins the studies of the configuration in use; which these are is a parameter.
rule report_page:
    input:
        expand("results/{study}/page.json", study=STUDIES),
    output:
        report(
            "results/report.html",
            category="Report",
            caption="../report/report.rst",
        ),
    log:
        "results/logs/report.log",
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(500, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt),
    params:
        studies=list(STUDIES),  # in their order
    script:
        "../scripts/report_page.py"
