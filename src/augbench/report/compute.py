"""What a study cost to compute, per stage and method, beside the paper's own account (section 3.1)."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from augbench.core import files
from augbench.report.comparison import ADDING

HOUR = 3600
MAKING = ("finetune", "screen", "generate", "retrieve")  # stages that a method's images take; the others serve all
COLUMNS = ["stage", "method", "part", "jobs", "hours", "gpu_hours", "core_hours", "gpus"]


def attempts(benchmark: Path) -> tuple[float, float]:
    """Seconds that a job took, by the clock and of processors, over all attempts since it was last done.

    The job's own note beside its ``benchmark`` file says so (see ``jobs.log_to``). The clock counts where an attempt
    was killed before it could note its processors' time, and Snakemake's, of the last attempt, where there is no note.
    """
    note = benchmark.with_suffix(".attempts.json")
    if note.exists():
        rows = [row for row in files.read_json(note) if row["seconds"] is not None]
    else:
        wall = pd.to_numeric(pd.read_csv(benchmark, sep="\t")["s"], errors="coerce").fillna(0).sum()
        rows = [{"seconds": float(wall), "cpu_seconds": None}]
    cores = (row["seconds"] if row["cpu_seconds"] is None else row["cpu_seconds"] for row in rows)
    return sum(row["seconds"] for row in rows), sum(cores)


def jobs_of(folder: str | Path, methods: Collection[str]) -> pd.DataFrame:
    """The jobs of a study from ``folder``/benchmarks, where they noted their time and their GPUs.

    Returns stage, method (empty for what serves all), part (of a fine-tuning its learning rate, of generated images
    what they are for, of classifiers the ratio), hours (wall-clock), gpu_hours (these times the job's GPUs),
    core_hours (of all its processes) and gpus (their model, empty where there was none).
    """
    root, found = Path(folder) / "benchmarks", []
    for path in sorted(root.glob("*/**/*.tsv")):
        stage, name = path.relative_to(root).parts[0], path.stem
        note = path.with_suffix(".gpus.json")
        gpus = files.read_json(note) if note.exists() else {"gpus": 0, "model": ""}
        hours, cores = (seconds / HOUR for seconds in attempts(path))
        method = _method(name, methods)
        about = {"stage": stage, "method": method, "part": _part(stage, name, method), "gpus": gpus["model"]}
        found.append(about | {"hours": hours, "gpu_hours": hours * gpus["gpus"], "core_hours": cores})
    return pd.DataFrame(found, columns=["stage", "method", "part", "hours", "gpu_hours", "core_hours", "gpus"])


def _method(name: str, methods: Collection[str]) -> str:
    """The method that a benchmark file is named after, ``METHOD`` or ``METHOD-...``; empty for none."""
    name = name.removeprefix("select-").removeprefix("summary-")
    return max((method for method in methods if f"{name}-".startswith(f"{method}-")), key=len, default="")


def _part(stage: str, name: str, method: str) -> str:
    """What of a method a job did: METHOD-lr-RATE, METHOD-CANDIDATE-SHARD, METHOD-xRATIO-FIRST-LAST
    or METHOD-further."""
    rest = name[len(method) + 1 :] if method else ""
    if stage in ("finetune", "retrieve"):
        return rest
    return rest.split("-")[0] if stage in ("generate", "classify") else ""


def table(jobs: pd.DataFrame) -> pd.DataFrame:
    """Sums of :func:`jobs_of` per stage, method and part, with the number of jobs."""
    groups = jobs.groupby(["stage", "method", "part"], as_index=False)
    sums = groups.agg(
        jobs=("hours", "size"),
        hours=("hours", "sum"),
        gpu_hours=("gpu_hours", "sum"),
        core_hours=("core_hours", "sum"),
        gpus=("gpus", lambda models: ", ".join(sorted(set(models) - {""}))),
    )
    return sums[COLUMNS]


class Images(NamedTuple):
    """How many images a method generated at the main ratio: for Table 1, and in all, for other candidates as well."""

    wanted: int
    all: int


def relative(
    sums: pd.DataFrame,
    methods: Mapping[str, Mapping],
    paper: pd.DataFrame,
    images: Mapping[str, Images],
    kept: Mapping[str, str],
) -> list[dict]:
    """What making each method's images took, relative to retrieval, here and in the paper: like beside like.

    ``methods`` maps those that generate or retrieve to their rows of the method table, ``paper`` is
    ``resources/paper_compute.csv``, ``kept`` the learning rate (lr-RATE) that a fine-tuned method kept. Rows have
    method; adapting, one fine-tuning, at the rate that was kept; making, generating or retrieving the images of Table
    1, their share of all that the method made; total, of these; times (total / retrieval's; None without retrieval);
    searching, all else that the method took: other rates, candidates with their images and classifiers, further ratios;
    and paper_adapting, paper_making, paper_total, paper_times (None where the paper gives none). Hours are
    :func:`unit`'s. As in the paper, the hours of one machine without GPU count like a GPU's, and training the
    classifier is left out: it is the same for all.
    """
    spent = hours(sums)
    published = {(row.method, row.stage): row.hours for row in paper.fillna({"method": ""}).itertuples()}
    rows = []
    for key, method in methods.items():
        mine = spent[(spent["method"] == key) & spent["stage"].isin(MAKING)]
        stage = mine.groupby("stage")["spent"].sum()
        one = (mine["stage"] == "finetune") & (mine["part"] == kept.get(key))
        adapting = float(mine.loc[one, "spent"].sum())
        share = images[key].wanted / images[key].all if key in images and images[key].all else 1.0
        main = mine[mine["part"] != "further"].groupby("stage")["spent"].sum()
        making = share * float(main.get("generate", 0.0)) + float(main.get("retrieve", 0.0))
        row = {"method": key, "title": method["title"], "family": method["family"]}
        row |= {"adapting": adapting, "making": making, "total": adapting + making}
        row["searching"] = max(0.0, float(stage.sum()) - row["total"])
        rows.append(row | _published(key, method, published))
    if not any(row["total"] for row in rows):
        return []  # nothing was measured
    here = sum(row["total"] for row in rows if methods[row["method"]]["start"] == "pool")
    there = published[("retrieval", "retrieve")]
    for row in rows:
        row["times"] = row["total"] / here if here else None
        row["paper_times"] = None if row["paper_total"] is None else row["paper_total"] / there
    return rows


def hours(sums: pd.DataFrame) -> pd.DataFrame:
    """:func:`table` with the column ``spent``, hours as :func:`unit` counts them: on a machine with GPUs, jobs without
    one count by the clock, as the paper's retrieval does."""
    kind = "gpu_hours" if sums["gpu_hours"].sum() else "core_hours"
    return sums.assign(spent=sums[kind].where(sums[kind] > 0, sums["hours"]))


def _published(key: str, method: Mapping, published: Mapping) -> dict:
    """The paper's hours of a method; it gives none for methods whose fine-tuning or start it does not account for."""
    adapting = published.get((key, "finetune"), None if method.get("trained") else 0.0)
    making = {"pool": published.get((key, "retrieve")), "noise": published[("", "generate")]}.get(method["start"])
    total = None if adapting is None or making is None else adapting + making
    return {"paper_adapting": adapting, "paper_making": making, "paper_total": total}


def unit(sums: pd.DataFrame) -> str:
    """What :func:`relative` counts: ``GPU-hours``, or ``core-hours`` where no job had a GPU."""
    return "GPU-hours" if sums["gpu_hours"].sum() else "core-hours"


def gather(
    folder: str | Path, methods: Mapping[str, Mapping], paper: pd.DataFrame, images: Mapping[str, Images], ratio: str
) -> dict:
    """What the report shows: :func:`unit`, rows of :func:`relative`, GPUs, and the hours (least, most) that the
    classifiers of a method took at the main ``ratio`` (xRATIO; x0 of the target data alone)."""
    folder = Path(folder)
    sums = table(jobs_of(folder, methods))
    adding = {key: row for key, row in methods.items() if row.get("start") in ADDING}
    chosen = {key: folder / "selection" / f"{key}.json" for key in adding}
    kept = {key: files.read_json(path)["candidate"].split("_")[0] for key, path in chosen.items() if path.exists()}
    classifier = paper[paper["stage"] == "classify"].iloc[0]
    spent = hours(sums)
    spent = spent[(spent["stage"] == "classify") & spent["part"].isin([ratio, "x0"])].groupby("method")["spent"].sum()
    return {
        "unit": unit(sums),
        "rows": relative(sums, adding, paper, images, kept) if len(sums) else [],
        "gpus": sorted(set(", ".join(sums["gpus"]).split(", ")) - {""}),
        "classifier": [float(spent.min()), float(spent.max())] if len(spent) else None,
        "paper_classifier": [float(classifier["hours"]), float(classifier["hours_most"])],
    }


def write(path: str | Path, folder: str | Path, methods: Collection[str]) -> None:
    """Write :func:`table` of a study as CSV; hours."""
    files.write_csv(path, table(jobs_of(folder, methods)))
