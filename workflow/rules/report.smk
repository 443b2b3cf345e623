from augbench.report.plan import FIGURE_FILES, Plan

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


def plan(study):
    """What the report shows of a study follows from this alone."""
    rows = {method: METHODS[method] for method in STUDIES[study].methods}
    return Plan(study, STUDIES[study], rows)


def report_files(study):
    """What a study's page reads, by the names of the fields of augbench.report.results.Files."""
    folder, page, clusters = f"results/{study}", plan(study), clustered(study)
    main = {method: ratios(study, method)[0] for method in page.methods}
    tables = ("table1", "differences", "scaling", "per_class", "confusions")
    return {
        "classes": f"{folder}/dataset/classes.csv",
        "train": f"{folder}/dataset/train.parquet",
        **{name: f"{folder}/tables/{name}.csv" for name in tables},
        "domain_gap": f"{folder}/tables/domain_gap.csv" if page.adding else None,
        "clusters": f"{folder}/finetune/clusters.parquet" if clusters else None,
        "paper_results": "resources/paper_results.csv",
        "paper_compute": "resources/paper_compute.csv",
        "summaries": {m: f"{folder}/summary/{m}.json" for m in page.methods},
        "histories": {
            m: [
                f"{folder}/classifier/{m}/x{main[m]}/run-{k}/history.csv"
                for k in range(1, STUDIES[study].runs + 1)
            ]
            for m in page.methods
        },
        "added": {
            m: f"{folder}/augmentation/{m}/x{main[m]}/split-1.parquet"
            for m in page.adding
        },
        "audits": {m: f"{folder}/audit/{m}/summary.json" for m in page.adding},
        "candidates": {
            m: f"{folder}/audit/{m}/candidates.parquet" for m in page.adding
        },
        "reviews": {m: f"{folder}/audit/{m}/review.html" for m in page.adding},
        "verdicts": verdicts(study),
        "generated": {m: generated(study, m, "parquet") for m in page.generating},
        "selections": {m: f"{folder}/selection/{m}.json" for m in page.finetuned},
        "finetunings": {
            m: [
                f"{folder}/finetune/{m}/lr-{rate:g}"
                for rate in STUDIES[study].finetune.grid
            ]
            for m in page.finetuned
        },
        "ledgers": {
            m: f"{folder}/retrieval/{m}/ledger.parquet" for m in page.retrieving
        },
        "funnels": {m: f"{folder}/retrieval/{m}/funnel.csv" for m in page.retrieving},
    }


def verdicts(study):
    """People's verdicts on duplicate candidates, by method, where there are any."""
    files = {m: f"resources/verdicts/{study}/{m}.csv" for m in adding(study)}
    return {method: file for method, file in files.items() if Path(file).is_file()}


def leaves(files):
    """All paths in a mapping of paths, lists and mappings of paths."""
    if isinstance(files, dict):
        files = list(files.values())
    if isinstance(files, list):
        return [path for each in files for path in leaves(each)]
    return [] if files is None else [files]


def measured_jobs(study):
    """The jobs that the report counts the time of, as fields of augbench.core.benchmarks.Job: those of the present
    configuration, for files of others may lie beside theirs."""
    return [
        (f"results/{study}/benchmarks/{stage}/{name}.tsv", stage, method, part)
        for jobs in (jobs_for_all_methods, jobs_by_method)
        for stage, name, method, part in jobs(study)
    ]


def jobs_for_all_methods(study):
    config, names = STUDIES[study], {"dataset": ["split", "dataset"]}
    trains = study in TRAINED_BACKBONE
    if config.target.reader == "digits":
        names["digits"] = ["target", "web"]
    if clip_folder(study):
        names["clip"] = ["train"]
    if config.backbone:
        names["backbone"] = ["vae", "unet", "safety"] if trains else ["fetch"]
        names["latents"] = ["encode"]
    if config.pool and f"results/{study}/pool/index" in index_folder(study):
        shards, embeddings = range(len(pool_shards(study))), range(
            embedding_jobs(study)
        )
        maker = {"folder": "pack", "urls": "download"}.get(config.pool.source)
        names["pool"] = [f"{maker}-{part}" for part in shards if maker]
        names["pool"] += [f"embed-{part}" for part in embeddings] + ["index"]
    if clustered(study):
        names["finetune"] = ["clusters"]
    if adding(study):
        sets = sorted({name for m in adding(study) for name in references(study, m)})
        detectors = ["hashes", "vectors"] if config.audit.detector else ["hashes"]
        names["audit"] = [f"{kind}-{name}" for kind in detectors for name in sets]
        names["domain_gap"] = ["judge", "domain_gap"]
    names["report"] = ["tables", "per_class"]
    return [(stage, name, "", "") for stage, each in names.items() for name in each]


def jobs_by_method(study):
    config, jobs = STUDIES[study], []
    for m in config.methods:
        for ratio in ratios(study, m):
            part = f"x{ratio}"
            if m in adding(study):
                jobs.append(("resample", f"{m}-{part}", m, ""))
            for first, last in stretches(config):
                jobs.append(("classify", f"{m}-{part}-{first}-{last}", m, part))
        if m in adding(study):
            detectors = (
                ["-hashes", "-vectors"] if config.audit.detector else ["-hashes"]
            )
            jobs += [("audit", f"{m}{kind}", m, "") for kind in ["", *detectors]]
        more = ["further"] if further_ratio(study, m) is not None else []
        if m in retrieving(study):
            jobs.append(("retrieve", m, m, ""))
            jobs += [("retrieve", f"{m}-{part}", m, part) for part in more]
        if m in generating(study):
            parts = ["screen", "selected"] if trained(m) else ["base"]
            for part in parts + more:
                for shard in range(generation_jobs(study)):
                    jobs.append(("generate", f"{m}-{part}-{shard}", m, part))
        if m in generating(study) and trained(m):
            rates = [f"lr-{rate:g}" for rate in config.finetune.grid]
            jobs += [("finetune", f"{m}-{rate}", m, rate) for rate in rates]
            screenings = range(screening_jobs(study, m))
            jobs += [("screen", f"{m}-{part}", m, "") for part in screenings]
            jobs.append(("screen", f"select-{m}", m, ""))
        jobs.append(("report", f"summary-{m}", m, ""))
    return jobs


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
