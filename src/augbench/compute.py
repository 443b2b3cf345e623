"""What a study cost to compute, per stage and method, beside the paper's own account (section 3.1)."""

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from augbench import files

HOUR = 3600
MAKING = ("finetune", "screen", "generate", "retrieve")  # stages that a method's images take; the others serve all
COLUMNS = ["stage", "method", "jobs", "hours", "gpu_hours", "core_hours", "gpus"]


def jobs_of(folder: str | Path, methods: Collection[str]) -> pd.DataFrame:
    """The jobs of a study from ``folder``/benchmarks, where Snakemake noted their time and they themselves their GPUs.

    Returns stage, method (empty for what serves all), hours (wall-clock), gpu_hours (these times the job's GPUs),
    core_hours (of all its processes; where it ended before that was measured, its wall-clock hours) and gpus (their
    model, empty where there was none). Of a job that was killed and went on, the last attempt counts.
    """
    root, found = Path(folder) / "benchmarks", []
    for path in sorted(root.glob("*/**/*.tsv")):
        stage, name = path.relative_to(root).parts[0], path.stem
        note = path.with_suffix(".gpus.json")
        gpus = files.read_json(note) if note.exists() else {"gpus": 0, "model": ""}
        table = pd.read_csv(path, sep="\t")
        wall = pd.to_numeric(table["s"], errors="coerce").fillna(0)
        cores = pd.to_numeric(table["cpu_time"], errors="coerce").fillna(wall) if "cpu_time" in table else wall
        hours = wall.sum() / HOUR
        about = {"stage": stage, "method": _method(name, methods), "gpus": gpus["model"]}
        found.append(about | {"hours": hours, "gpu_hours": hours * gpus["gpus"], "core_hours": cores.sum() / HOUR})
    return pd.DataFrame(found, columns=["stage", "method", "hours", "gpu_hours", "core_hours", "gpus"])


def _method(name: str, methods: Collection[str]) -> str:
    """The method that a benchmark file is named after, ``METHOD`` or ``METHOD-...``; empty for none."""
    name = name.removeprefix("select-").removeprefix("summary-")
    return max((method for method in methods if f"{name}-".startswith(f"{method}-")), key=len, default="")


def table(jobs: pd.DataFrame) -> pd.DataFrame:
    """Sums of :func:`jobs_of` per stage and method, with the number of jobs."""
    groups = jobs.groupby(["stage", "method"], as_index=False)
    sums = groups.agg(
        jobs=("hours", "size"),
        hours=("hours", "sum"),
        gpu_hours=("gpu_hours", "sum"),
        core_hours=("core_hours", "sum"),
        gpus=("gpus", lambda models: ", ".join(sorted(set(models) - {""}))),
    )
    return sums[COLUMNS]


def relative(sums: pd.DataFrame, methods: Mapping[str, Mapping], paper: pd.DataFrame) -> list[dict]:
    """What making each method's images took, relative to retrieval, here and in the paper.

    ``methods`` maps those that generate or retrieve to their rows of the method table, ``paper`` is
    ``resources/paper_compute.csv``. Rows have method, adapting (fine-tuning and screening), making (generating or
    retrieving), total, times (total / retrieval's; None without retrieval) and paper_adapting, paper_making,
    paper_total, paper_times (None where the paper gives none). Hours are :func:`unit`'s. As in the paper, the
    hours of one machine without GPU count like a GPU's, and training the classifier is left out: it is the same
    for all.
    """
    kind = "gpu_hours" if sums["gpu_hours"].sum() else "core_hours"
    # On a machine with GPUs, jobs without one count by the clock, as the paper's retrieval does.
    hours = sums[kind].where(sums[kind] > 0, sums["hours"])
    spent = {(row.stage, row.method): amount for row, amount in zip(sums.itertuples(), hours, strict=True)}
    published = {(row.method, row.stage): row.hours for row in paper.fillna({"method": ""}).itertuples()}
    rows = []
    for key, method in methods.items():
        found = {stage: spent.get((stage, key), 0.0) for stage in MAKING}
        adapting, making = found["finetune"] + found["screen"], found["generate"] + found["retrieve"]
        row = {"method": key, "title": method["title"], "family": method["family"]}
        row |= {"adapting": adapting, "making": making, "total": adapting + making}
        rows.append(row | _published(key, method, published))
    if not any(row["total"] for row in rows):
        return []  # nothing was measured
    here = sum(row["total"] for row in rows if methods[row["method"]]["start"] == "pool")
    there = published[("retrieval", "retrieve")]
    for row in rows:
        row["times"] = row["total"] / here if here else None
        row["paper_times"] = None if row["paper_total"] is None else row["paper_total"] / there
    return rows


def _published(key: str, method: Mapping, published: Mapping) -> dict:
    """The paper's hours of a method; it gives none for methods whose fine-tuning or start it does not account for."""
    adapting = published.get((key, "finetune"), None if method.get("trained") else 0.0)
    making = {"pool": published.get((key, "retrieve")), "noise": published[("", "generate")]}.get(method["start"])
    total = None if adapting is None or making is None else adapting + making
    return {"paper_adapting": adapting, "paper_making": making, "paper_total": total}


def unit(sums: pd.DataFrame) -> str:
    """What :func:`relative` counts: ``GPU-hours``, or ``core-hours`` where no job had a GPU."""
    return "GPU-hours" if sums["gpu_hours"].sum() else "core-hours"


def gather(folder: str | Path, methods: Mapping[str, Mapping], paper: pd.DataFrame) -> dict:
    """What the report shows: :func:`unit`, rows of :func:`relative`, GPUs, and hours of all classifiers."""
    sums = table(jobs_of(folder, methods))
    adding = {key: row for key, row in methods.items() if row.get("start") in ("noise", "image", "pool")}
    classifier = paper[paper["stage"] == "classify"].iloc[0]
    spent = sums[sums["stage"] == "classify"]["gpu_hours" if sums["gpu_hours"].sum() else "core_hours"].sum()
    return {
        "unit": unit(sums),
        "rows": relative(sums, adding, paper) if len(sums) else [],
        "gpus": sorted(set(", ".join(sums["gpus"]).split(", ")) - {""}),
        "classifier": spent,
        "paper_classifier": [float(classifier["hours"]), float(classifier["hours_most"])],
    }


def write(path: str | Path, folder: str | Path, methods: Collection[str]) -> None:
    """Write :func:`table` of a study as CSV; hours."""
    files.write_csv(path, table(jobs_of(folder, methods)))
