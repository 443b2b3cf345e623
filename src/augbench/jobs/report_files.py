"""What the report reads of a study, and which jobs it counts the time of: both follow from the configuration."""

from augbench.core import package_data
from augbench.jobs.study_files import StudyFiles

TABLES = ("table1", "differences", "scaling", "per_class", "confusions")


def report_files(files: StudyFiles) -> dict:
    """Paths of what a study's page reads, by the names of the fields of ``augbench.report.results.Files``."""
    main = {method: files.ratios(method)[0] for method in files.methods}
    finetuned = [method for method in files.generating if files.is_trained(method)]
    adding, retrieving = files.adding, files.retrieving
    return {
        "classes": files.classes,
        "train": files.split("train"),
        **{name: files.table(name) for name in TABLES},
        "domain_gap": files.table("domain_gap") if adding else None,
        "clusters": files.clusters if files.cluster_counts else None,
        "paper_results": package_data.as_input("paper_results.csv"),
        "paper_compute": package_data.as_input("paper_compute.csv"),
        "summaries": {key: files.summary(key) for key in files.methods},
        "histories": {key: [files.run(key, main[key], k, "history.csv") for k in files.runs] for key in files.methods},
        "added": {key: files.added_set(key, main[key], 1) for key in adding},
        "audits": {key: files.audit(key, "summary.json") for key in adding},
        "candidates": {key: files.audit(key, "candidates.parquet") for key in adding},
        "reviews": {key: files.audit(key, "review.html") for key in adding},
        "verdicts": {key: files.verdicts(key) for key in adding if files.verdicts(key) in files.verdict_files},
        "generated": {key: files.generated(key, "parquet") for key in files.generating},
        "selections": {key: files.selection(key) for key in finetuned},
        "finetunings": {key: files.finetunings(key, ".csv") for key in finetuned},
        "external": {key: files.added_images(key) for key in files.external},
        "ledgers": {key: files.retrieval(key, "ledger.parquet") for key in retrieving},
        "funnels": {key: files.retrieval(key, "funnel.csv") for key in retrieving},
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
    if files.cluster_counts:
        names["finetune"] = ["clusters"]
    if files.adding:
        sets = sorted({name for method in files.adding for name in files.reference_names(method)})
        names["audit"] = [f"{kind}-{name}" for kind in _detectors(files) for name in sets]
        names["domain_gap"] = ["judge", "domain_gap"]
    names["report"] = ["tables", "per_class"]
    return [(stage, name, "", "") for stage, each in names.items() for name in each]


def _detectors(files: StudyFiles) -> list[str]:
    return ["hashes", "vectors"] if files.study.audit.detector else ["hashes"]


def _by_method(files: StudyFiles):
    jobs = []
    for method in files.methods:
        jobs += [*_added(files, method), *_images(files, method)]
        for ratio in files.ratios(method):
            stretches = [f"{method}-x{ratio}-{first}-{last}" for first, last in files.stretches]
            jobs += [("classify", name, method, f"x{ratio}") for name in stretches]
        jobs.append(("report", f"summary-{method}", method, ""))
    return jobs


def _added(files: StudyFiles, method: str):
    if method not in files.adding:
        return []
    resampled = [("resample", f"{method}-x{ratio}", method, "") for ratio in files.ratios(method)]
    audits = ["", *(f"-{kind}" for kind in _detectors(files))]
    return resampled + [("audit", f"{method}{kind}", method, "") for kind in audits]


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
