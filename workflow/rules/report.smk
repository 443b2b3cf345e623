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
        code=code("summary"),
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
        dataset=lambda w: paper_dataset(study_of(w).model_dump()),
        code=code("summary", "comparison"),
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
        code=code("perclass"),
    script:
        "../scripts/per_class.py"


rule report_page:
    input:
        paper=["resources/paper_compute.csv", "resources/paper_results.csv"],
        tables=expand("results/{study}/tables/table1.csv", study=STUDIES),
        differences=expand("results/{study}/tables/differences.csv", study=STUDIES),
        scaling=expand("results/{study}/tables/scaling.csv", study=STUDIES),
        classwise=expand("results/{study}/tables/per_class.csv", study=STUDIES),
        gaps=[
            f"results/{study}/tables/domain_gap.csv"
            for study in STUDIES
            if adding(study)
        ],
        selections=[
            f"results/{study}/selection/{method}.json"
            for study in STUDIES
            for method in generating(study)
            if trained(method)
        ],
        clusters=[
            f"results/{study}/finetune/clusters.parquet"
            for study in STUDIES
            if clustered(study)
        ],
        generated=[
            file
            for study in STUDIES
            for method in generating(study)
            for file in generated(study, method, "parquet")
        ],
        classes=expand("results/{study}/dataset/classes.csv", study=STUDIES),
        train=expand("results/{study}/dataset/train.parquet", study=STUDIES),
        ledgers=[file for study in STUDIES for file in ledgers(study)],
        funnels=[
            f"results/{study}/retrieval/{method}/funnel.csv"
            for study in STUDIES
            for method in starts(study, "pool")
        ],
        galleries=[
            f"results/{study}/augmentation/{method}/x{ratios(study, method)[0]}/split-1.parquet"
            for study in STUDIES
            for method in adding(study)
        ],
        audits=[
            f"results/{study}/audit/{method}/candidates.parquet"
            for study in STUDIES
            for method in adding(study)
        ],
        reviews=[
            f"results/{study}/audit/{method}/review.html"
            for study in STUDIES
            for method in adding(study)
        ],
        verdicts=[file for study in STUDIES for file in verdicts(study)],
    output:
        page=report(
            "results/report.html",
            category="Report",
            caption="../report/report.rst",
        ),
        compute=expand("results/{study}/tables/compute.csv", study=STUDIES),
        figures=report(
            [
                f"results/{study}/figures/{figure}.{kind}"
                for study in STUDIES
                for figure in figures(study)
                for kind in exhibits.KINDS
            ],
            category="Figures",
            caption="../report/figures.rst",
        ),
    log:
        "results/logs/report.log",
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=30),
    params:
        methods={name: method.model_dump() for name, method in METHODS.items()},
        settings={
            name: study.model_dump(exclude={"jobs"}) for name, study in STUDIES.items()
        },
        generated={
            study: {
                method: generated(study, method, "parquet")
                for method in generating(study)
            }
            for study in STUDIES
        },
        code=code("report"),
    script:
        "../scripts/report.py"
