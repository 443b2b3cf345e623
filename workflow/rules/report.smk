from augbench.core import package_data
from augbench.report import plan


# The domain gap between added and real images, judged by a classifier of real images that no method adds or starts from.
rule judge:
    input:
        classes=ANY.classes,
        reserve=lambda w: files_of(w).reserve,
        validation=ANY.split("validation"),
        test=ANY.split("test"),
    output:
        metrics=ANY.judge("metrics.json"),
        weights=ANY.judge("best.safetensors"),
    log:
        "results/{study}/logs/domain_gap/judge.log",
    benchmark:
        "results/{study}/benchmarks/domain_gap/judge.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: costs_of(w).classifier_cores
    resources:
        **needs("judge"),
        gpu=setting("classifier.processes"),
    params:
        seed=setting("seed"),
        settings=setting("classifier"),
        save_minutes=setting("jobs.save_minutes"),
        data=data_in("classifier"),
    message:
        "{wildcards.study}: train the judge of the domain gap on real images"
    script:
        "../scripts/judge.py"


rule domain_gap:
    input:
        classes=ANY.classes,
        test=ANY.split("test"),
        metrics=rules.judge.output.metrics,
        weights=rules.judge.output.weights,
        added=lambda w: files_of(w).main_added_sets,
        clip=lambda w: files_of(w).clip if study_of(w).metrics.row.needs_clip else [],
    output:
        gap=report(
            ANY.table("domain_gap"),
            category="Tables",
            caption="../report/domain_gap.rst",
            labels={"study": "{study}", "table": "domain gap"},
        ),
        metrics=report(
            ANY.table("set_metrics"),
            category="Tables",
            caption="../report/set_metrics.rst",
            labels={"study": "{study}", "table": "metrics of image sets"},
        ),
    log:
        "results/{study}/logs/domain_gap/domain_gap.log",
    benchmark:
        "results/{study}/benchmarks/domain_gap/domain_gap.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: costs_of(w).classifier_cores // study_of(w).classifier.processes  # one of its processes
    resources:
        **needs("domain_gap"),
        gpu=1,
    params:
        classifier=setting("classifier"),
        methods=lambda w: files_of(w).adding,
        seed=setting("seed"),
        encoder=setting("metrics.encoder"),
        clip=lambda w: files_of(w).clip_name if study_of(w).metrics.row.needs_clip else None,
        data=data_in("encoder", "classifier"),
    message:
        "{wildcards.study}: compare added with real images: the domain gap, and metrics of image sets"
    script:
        "../scripts/domain_gap.py"


# Summaries, Table 1 and the report.
rule summary:
    input:
        metrics=lambda w: files_of(w).metrics(w.method),
        added=lambda w: files_of(w).added_sets(w.method) if METHODS[w.method].start.adds_images else [],
        train=ANY.split("train"),
        test=ANY.split("test"),
        audit=lambda w: rules.audit.output.summary if METHODS[w.method].start.adds_images else [],
    output:
        ANY.summary("{method}"),
    log:
        "results/{study}/logs/report/summary-{method}.log",
    benchmark:
        "results/{study}/benchmarks/report/summary-{method}.tsv"
    localrule: is_light("summary")
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("summary"),
    params:
        method=lambda w: METHODS[w.method].model_dump(),
        ratios=lambda w: files_of(w).ratios(w.method),
    message:
        "{wildcards.study}: sum up {wildcards.method}"
    script:
        "../scripts/summary.py"


rule tables:
    input:
        summaries=lambda w: files_of(w).summaries,
        predictions=lambda w: files_of(w).predictions,
        classes=ANY.classes,
        paper=package_data.as_input("paper_results.csv"),
    output:
        table1=report(
            ANY.table("table1"),
            category="Tables",
            caption="../report/table1.rst",
            labels={"study": "{study}", "table": "1"},
        ),
        scaling=ANY.table("scaling"),
        groups=ANY.table("groups"),
        differences=report(
            ANY.table("differences"),
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
        **needs("tables"),
    params:
        dataset=lambda w: plan.paper_dataset(study_of(w)),
        methods=setting("methods"),
    message:
        "{wildcards.study}: write Table 1, accuracies by ratio and by class, and differences between methods"
    script:
        "../scripts/tables.py"


# Whether what methods add helps each of the study's classifiers.
rule classifiers:
    input:
        metrics=lambda w: files_of(w).crossed_runs("metrics.json"),
        predictions=lambda w: files_of(w).crossed_runs("predictions.parquet"),
    output:
        report(
            ANY.table("classifiers"),
            category="Tables",
            caption="../report/classifiers.rst",
            labels={"study": "{study}", "table": "classifiers"},
        ),
    log:
        "results/{study}/logs/report/classifiers.log",
    benchmark:
        "results/{study}/benchmarks/report/classifiers.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("classifiers"),
    params:
        classifiers=lambda w: list(study_of(w).all_classifiers),
        methods=setting("methods"),
        without=lambda w: files_of(w).without,
    message:
        "{wildcards.study}: compare methods in the eyes of each classifier"
    script:
        "../scripts/classifiers.py"


rule per_class:
    input:
        lambda w: files_of(w).predictions,
    output:
        accuracies=ANY.table("per_class"),
        confusions=ANY.table("confusions"),
    log:
        "results/{study}/logs/report/per_class.log",
    benchmark:
        "results/{study}/benchmarks/report/per_class.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("per_class"),
    params:
        methods=setting("methods"),
    message:
        "{wildcards.study}: tabulate accuracies and confusions of each class"
    script:
        "../scripts/per_class.py"


# Accuracy over several draws of the target, each of which is a study of its own.
rule subsamples:
    input:
        lambda w: files_of(w).draw_summaries,
    output:
        report(
            ANY.table("subsamples"),
            category="Tables",
            caption="../report/subsamples.rst",
            labels={"study": "{study}", "table": "several draws"},
        ),
    log:
        "results/{study}/logs/report/subsamples.log",
    benchmark:
        "results/{study}/benchmarks/report/subsamples.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("subsamples"),
    params:
        methods=setting("methods"),
        without=lambda w: next((name for name in study_of(w).methods if METHODS[name].is_target_alone), None),
    message:
        "{wildcards.study}: tabulate accuracy over several draws of the target"
    script:
        "../scripts/subsamples.py"


# A study's page with its figures, its section of the joined page, its answer as text, and its table of costs.
rule study_page:
    input:
        lambda w: leaves(report_files(files_of(w))),
    output:
        page=report(
            ANY.report,
            category="Report",
            caption="../report/report.rst",
            labels={"study": "{study}"},
        ),
        section=ANY.report_section,
        answer=report(
            ANY.answer,
            category="Report",
            caption="../report/answer.rst",
            labels={"study": "{study}"},
        ),
        compute=ANY.table("compute"),
        # A folder, for a configuration with fewer figures leaves none of another's there.
        figures=report(
            directory(ANY.figures),
            patterns=[f"{{figure}}.{kind}" for kind in plan.FIGURE_FILES],
            category="Figures",
            caption="../report/figures.rst",
            labels={"study": "{study}", "figure": "{figure}"},
        ),
    log:
        "results/{study}/logs/report.log",
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("study_page"),
    params:
        study=lambda w: study_of(w).model_dump(exclude={"jobs"}),
        methods=lambda w: files_of(w).method_rows,
        files=lambda w: report_files(files_of(w)),
        jobs=lambda w: measured_jobs(files_of(w)),
        verdicts=lambda w: user_data.digest(files_of(w).verdict_files),
    message:
        "{wildcards.study}: write the study's report and figures"
    script:
        "../scripts/study_page.py"


# The page that joins the studies of the configuration in use.
rule report_page:
    input:
        [FILES[name].report_section for name in SHOWN],
    output:
        report("results/report.html", category="Report", caption="../report/report.rst"),
    log:
        "results/logs/report.log",
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        studies=SHOWN,  # in their order
    message:
        "write the report of all studies"
    script:
        "../scripts/report_page.py"
