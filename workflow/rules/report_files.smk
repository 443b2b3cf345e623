# What the report reads of a study, and the jobs that it counts the time of.
from augbench.report.plan import FIGURE_FILES, Plan


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
