"""What a study cost to compute, per stage and method, beside the paper's own account (section 3.1)."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

import pandas as pd

from augbench.core.benchmarks import Measurement
from augbench.study.methods import Method

HOUR = 3600
MAKING = ("finetune", "screen", "generate", "retrieve")  # stages that a method's images take; the others serve all
COLUMNS = ["stage", "method", "part", "jobs", "hours", "gpu_hours", "core_hours", "gpus"]


def jobs_of(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """What each job took.

    Returns stage, method (empty for what serves all), part (of a fine-tuning its learning rate, of generated images
    what they are for, of classifiers the ratio), hours (by the clock), gpu_hours (these times the job's GPUs),
    core_hours (of all its processes) and gpus (their model, empty where there was none).
    """
    rows = []
    for each in measurements:
        hours = each.seconds / HOUR
        row = {"stage": each.job.stage, "method": each.job.method, "part": each.job.part, "gpus": each.gpu_model}
        rows.append(row | {"hours": hours, "gpu_hours": hours * each.gpus, "core_hours": each.cpu_seconds / HOUR})
    return pd.DataFrame(rows, columns=["stage", "method", "part", "hours", "gpu_hours", "core_hours", "gpus"])


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
    methods: Mapping[str, Method],
    paper: pd.DataFrame,
    images: Mapping[str, Images],
    kept: Mapping[str, str],
    unions: Mapping[str, Mapping[str, Fraction]] | None = None,
) -> list[dict]:
    """What making each method's images took, relative to retrieval, here and in the paper: like beside like.

    ``methods`` maps those that generate or retrieve to their rows of the method table, ``paper`` is
    ``paper_compute.csv``, ``kept`` the learning rate (lr-RATE) that a fine-tuned method kept. Rows have
    method; adapting, one fine-tuning, at the rate that was kept; making, generating or retrieving the images of Table
    1, their share of all that the method made; total, of these; times (total / retrieval's; None without retrieval);
    searching, all else that the method took: other rates, candidates with their images and classifiers, further ratios;
    and paper_adapting, paper_making, paper_total, paper_times (None where the paper gives none). Hours are
    :func:`unit`'s. As in the paper, the hours of one machine without GPU count like a GPU's, and training the
    classifier is left out: it is the same for all. ``unions`` are methods that take shares of others' images: what
    adapts these takes a union in full, their images in its shares.
    """
    spent = hours(sums)
    published = {(row.method, row.stage): row.hours for row in paper.fillna({"method": ""}).itertuples()}
    unions, rows = unions or {}, []
    for key, method in methods.items():
        if key in unions:
            continue
        mine = spent[(spent["method"] == key) & spent["stage"].isin(MAKING)]
        stage = mine.groupby("stage")["spent"].sum()
        one = (mine["stage"] == "finetune") & (mine["part"] == kept.get(key))
        adapting = float(mine.loc[one, "spent"].sum())
        share = images[key].wanted / images[key].all if key in images and images[key].all else 1.0
        main = mine[mine["part"] != "further"].groupby("stage")["spent"].sum()
        making = share * float(main.get("generate", 0.0)) + float(main.get("retrieve", 0.0))
        total = adapting + making
        row = {"method": key, "title": method.title, "adapting": adapting, "making": making, "total": total}
        row["searching"] = max(0.0, float(stage.sum()) - total)
        rows.append(row | _published(key, method, published))
    by_method = {row["method"]: row for row in rows}
    for key, shares in unions.items():
        by_method[key] = {"method": key, "title": methods[key].title} | _shared(by_method, shares)
    rows = [by_method[key] for key in methods]
    if not any(row["total"] for row in rows):
        return []  # nothing was measured
    here = sum(row["total"] for row in rows if methods[row["method"]].start.is_retrieved)
    there = published[("retrieval", "retrieve")]
    for row in rows:
        row["times"] = row["total"] / here if here else None
        row["paper_times"] = None if row["paper_total"] is None else row["paper_total"] / there
    return rows


def _shared(rows: Mapping[str, Mapping], shares: Mapping[str, Fraction]) -> dict:
    """The numbers of a union from those of its methods."""

    def total(name: str, of_share: bool = False) -> float:
        return sum(rows[key][name] * (float(share) if of_share else 1.0) for key, share in shares.items())

    row = {"adapting": total("adapting"), "making": total("making", of_share=True), "searching": total("searching")}
    row["total"] = row["adapting"] + row["making"]
    names = ("paper_adapting", "paper_making")
    if any(rows[key][name] is None for key in shares for name in names):
        return row | dict.fromkeys([*names, "paper_total"])
    paper = {name: total(name, of_share=name == "paper_making") for name in names}
    return row | paper | {"paper_total": sum(paper.values())}


def hours(sums: pd.DataFrame) -> pd.DataFrame:
    """:func:`table` with the column ``spent``, hours as :func:`unit` counts them: on a machine with GPUs, jobs without
    one count by the clock, as the paper's retrieval does."""
    kind = "gpu_hours" if sums["gpu_hours"].sum() else "core_hours"
    return sums.assign(spent=sums[kind].where(sums[kind] > 0, sums["hours"]))


def _published(key: str, method: Method, published: Mapping) -> dict:
    """The paper's hours of a method; it gives none for methods whose fine-tuning or start it does not account for."""
    adapting = published.get((key, "finetune"), None if method.trained else 0.0)
    stage = method.start.paper_stage
    making = published.get((key, stage), published.get(("", stage)))
    total = None if adapting is None or making is None else adapting + making
    return {"paper_adapting": adapting, "paper_making": making, "paper_total": total}


def unit(sums: pd.DataFrame) -> str:
    """What :func:`relative` counts: ``GPU-hours``, or ``core-hours`` where no job had a GPU."""
    return "GPU-hours" if sums["gpu_hours"].sum() else "core-hours"
