"""What the report reads of a study, and which jobs it counts the time of: both follow from the configuration."""

from augbench.core import package_data
from augbench.jobs.study_files import StudyFiles

TABLES = ("table1", "differences", "scaling", "groups", "per_class", "confusions")


def report_files(files: StudyFiles) -> dict:
    """Paths of what a study's page reads, by the names of the fields of ``augbench.report.results.Files``."""
    main = {method: files.ratios(method)[0] for method in files.study.methods}
    adding, makers = files.adding, files.makers
    # Method -> the one whose images it adds, of those that one of these stages makes.
    generated, retrieved, external = (
        {method: maker for method, maker in makers.items() if maker in made}
        for made in (files.generating, files.retrieving, files.external)
    )
    finetuned = {method: maker for method, maker in generated.items() if files.is_trained(method)}
    return {
        "classes": files.classes,
        "train": files.split("train"),
        "validation": files.split("validation"),
        **{name: files.table(name) for name in TABLES},
        **{name: files.table(name) if adding else None for name in ("domain_gap", "set_metrics")},
        "evaluation": files.table("evaluation") if files.study.evaluate else None,
        "subsamples": files.table("subsamples") if files.study.subsamples > 1 else None,
        "classifiers": files.table("classifiers") if files.shows_classifiers else None,
        "zero_shot": files.zero_shot("metrics.json") if files.study.zero_shot else None,
        "clusters": files.clusters if files.cluster_counts else None,
        "paper_results": package_data.as_input("paper_results.csv"),
        "paper_compute": package_data.as_input("paper_compute.csv"),
        "summaries": {key: files.summary(key) for key in main},
        "histories": {key: [files.run(key, main[key], k, "history.csv") for k in files.runs] for key in main},
        "added": {key: files.added_set(key, main[key], 1) for key in adding},
        "audits": {key: files.audit(key, "summary.json") for key in adding},
        "candidates": {key: files.audit(key, "candidates.parquet") for key in adding},
        "reviews": {key: files.audit(key, "review.html") for key in adding},
        "verdicts": {key: files.verdicts(key) for key in adding if files.verdicts(key) in files.verdict_files},
        "generated": {key: files.generated(maker, "parquet") for key, maker in generated.items()},
        "selections": {key: files.selection(maker) for key, maker in finetuned.items()},
        "finetunings": {key: files.finetunings(maker, ".csv") for key, maker in finetuned.items()},
        "external": {key: files.added_images(maker) for key, maker in external.items()},
        "ledgers": {key: files.retrieval(maker, "ledger.parquet") for key, maker in retrieved.items()},
        "funnels": {key: files.retrieval(maker, "funnel.csv") for key, maker in retrieved.items()},
        "hosts": {key: files.retrieval(maker, "hosts.csv") for key, maker in retrieved.items()},
        "pool_ledgers": files.pool_ledgers if retrieved else [],
        "scores": {key: files.scores(makers[key], "main") for key in adding if makers[key] in files.scored},
        "filtered": {key: files.filtered(key, "main", "counts.csv") for key in files.filtering if key in adding},
    }


def leaves(paths) -> list[str]:
    """All paths in a mapping of paths, lists and mappings of paths."""
    if isinstance(paths, dict):
        paths = list(paths.values())
    if isinstance(paths, list):
        return [path for each in paths for path in leaves(each)]
    return [] if paths is None else [paths]


def measured_jobs(files: StudyFiles) -> list[tuple[str, str, str, str]]:
    """The jobs whose time the report counts, as fields of :class:`augbench.core.benchmarks.Job`: those of the present
    configuration, for files of other ones may lie beside theirs."""
    return [
        (f"{files.folder}/benchmarks/{stage}/{name}.tsv", stage, method, part)
        for jobs in (_for_all_methods, _by_method)
        for stage, name, method, part in jobs(files)
    ]


def _for_all_methods(files: StudyFiles):
    study, names = files.study, {"dataset": ["split", "dataset"]}
    if study.target.reader.is_built_in:
        names["digits"] = ["target", "web"]
    if study.clip and study.clip.train:
        names["clip"] = ["train"]
    if study.backbone:
        names["backbone"] = ["vae", "unet", "safety"] if files.trains_backbone else ["fetch"]
    if files.backbone_names:
        names["backbone"] = names.get("backbone", []) + [f"fetch-{name}" for name in files.backbone_names]
    if files.encoded_backbones:
        names["latents"] = [f"encode-{name}" if name else "encode" for name in files.encoded_backbones]
    if study.safety.named:
        names["backbone"] = [*names.get("backbone", []), "safety_checker"]
    if study.pool and files.pool_index in files.index:
        maker = "download" if study.pool.source.downloads else "pack"
        packed = range(len(files.pool_shards)) if study.pool.source.is_packed else ()
        names["pool"] = [f"{maker}-{part}" for part in packed]
        names["pool"] += [f"embed-{part}" for part in range(files.embedding_jobs)] + ["index"]
    if files.matches_captions:
        names["pool"] = [*names.get("pool", []), "captions"]
    if files.cluster_counts:
        names["finetune"] = ["clusters"]
    if files.adding:
        sets = sorted({name for method in files.adding for name in files.reference_names(method)})
        scored, compared = files.scored_references, sets if files.study.audit.detector else []
        names["audit"] = [f"hashes-{name}" for name in sorted({*sets, *scored})]
        if files.embedder:
            names["audit"] += [f"vectors-{name}" for name in sorted({*compared, *scored})]
        names["domain_gap"] = ["judge", "domain_gap"]
    if study.evaluate:
        names["evaluate"] = [f"{name}-images" for name in study.evaluate]
    if files.probes:
        names["features"] = [f"{probe}/{images}" for probe in files.probes for images in files.featured(probe)]
    if study.zero_shot:
        names["zero_shot"] = ["test"]
    names["report"] = ["tables", "per_class", *["classifiers"] * files.shows_classifiers]
    names["report"] += ["evaluation"] * bool(study.evaluate) + ["subsamples"] * (study.subsamples > 1)
    return [(stage, name, "", "") for stage, each in names.items() for name in each]


def _detectors(files: StudyFiles) -> list[str]:
    return ["hashes", "vectors"] if files.study.audit.detector else ["hashes"]


def _by_method(files: StudyFiles):
    jobs = []
    for method in files.methods:
        jobs += [*_added(files, method), *_images(files, method)]
        if method not in files.study.methods:
            continue
        for ratio in files.ratios(method):
            stretches = [f"{method}-x{ratio}-{first}-{last}" for first, last in files.stretches]
            jobs += [("classify", name, method, f"x{ratio}") for name in stretches]
        main = files.ratios(method)[0]
        jobs += [("evaluate", f"{name}-{method}-x{main}", method, "") for name in files.study.evaluate]
        stretches = [f"{method}-x{main}-{first}-{last}" for first, last in files.stretches]
        for classifier in files.study.classifiers:
            jobs += [("classifiers", f"{classifier}/{name}", method, classifier) for name in stretches]
        jobs.append(("report", f"summary-{method}", method, ""))
    return jobs


def _added(files: StudyFiles, method: str):
    start = files.methods[method].start
    if not start.adds_images:
        return []
    drawn = [("resample", f"{method}-x{ratio}", method, "") for ratio in files.image_ratios(method)]
    jobs = files.scored_extents(method)
    jobs += [f"{extent}-filter" for extent in files.extents(method) if files.is_filtered(method)]
    drawn += [("scores", f"{method}-{job}", method, "") for job in jobs]
    if method not in files.adding:
        return drawn
    audits = ["", *(f"-{kind}" for kind in _detectors(files))]
    return drawn + [("audit", f"{method}{kind}", method, "") for kind in audits]


def _images(files: StudyFiles, method: str):
    """The jobs that make a method's images."""
    more = ["further"] if files.further_ratio(method) is not None else []
    if method in files.retrieving:
        return [("retrieve", method, method, ""), *(("retrieve", f"{method}-{part}", method, part) for part in more)]
    if method in files.external:
        listed = [("added", f"{method}-list", method, "")]
        return listed + ([("added", f"{method}-script", method, "")] if files.study.added[method].script else [])
    if method not in files.generating:
        return []
    trained = files.is_trained(method)
    jobs = [
        ("generate", f"{method}-{part}-{shard}", method, part)
        for part in [*(["screen", "selected"] if trained else ["base"]), *more]
        for shard in range(files.generation_jobs)
    ]
    if trained:
        rates = [f"lr-{rate:g}" for rate in files.study.finetune.grid]
        jobs += [("finetune", f"{method}-{rate}", method, rate) for rate in rates]
        jobs += [("screen", f"{method}-{part}", method, "") for part in range(files.screening_jobs(method))]
        jobs.append(("screen", f"select-{method}", method, ""))
    return jobs
