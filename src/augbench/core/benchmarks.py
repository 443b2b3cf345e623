"""What jobs took: the one reader of Snakemake's benchmark files and of the notes that jobs write beside them."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from augbench.core import files

STAGE_TIMES = ["stage", "jobs", "seconds", "max_rss_mb"]


class Job(NamedTuple):
    """A job of a study: its benchmark file and what it was for."""

    benchmark: str
    stage: str
    method: str = ""  # empty for what serves all methods
    part: str = ""  # a fine-tuning's learning rate (lr-RATE), what images are for, a classifier's ratio (xRATIO)


class Measurement(NamedTuple):
    """What a job took. Seconds add up all attempts since the job was last done."""

    job: Job
    seconds: float  # by the clock, without those that it waited for a GPU
    cpu_seconds: float  # of all its processes; ``seconds`` where an attempt was killed before it could note them
    last_seconds: float  # of the last attempt alone, by the clock
    ended: float  # seconds since 1970
    max_rss_mb: float  # resident memory, MiB; NaN where it was not measured
    gpus: int
    gpu_model: str


def measure(jobs: Iterable[Job]) -> list[Measurement]:
    """The measurements of those jobs that have a benchmark file; a job that took results as they were has none.

    Only the jobs that are named count: files of an earlier configuration of the same study may lie beside theirs.
    """
    return [_measurement(job) for job in jobs if Path(job.benchmark).is_file()]


def last_seconds(benchmark: str | Path) -> float | None:
    """Seconds of a job's last attempt; None where there is no benchmark file, or one that is not complete."""
    try:
        seconds = _column(_rows(benchmark), "s")
    except (OSError, ValueError):
        return None
    return sum(seconds) if seconds else None


def stage_times(measurements: Iterable[Measurement]):
    """Time per stage as a table, the longest first: columns STAGE_TIMES.

    ``seconds`` is summed over jobs; ``max_rss_mb`` is the resident memory of the largest job (MiB, empty where it was
    not measured).
    """
    import pandas as pd

    rows = [(each.job.stage, each.seconds, each.max_rss_mb) for each in measurements]
    grouped = pd.DataFrame(rows, columns=["stage", "seconds", "max_rss_mb"]).groupby("stage")
    times = grouped.agg(jobs=("seconds", "size"), seconds=("seconds", "sum"), max_rss_mb=("max_rss_mb", "max"))
    times = times.round({"seconds": 1, "max_rss_mb": 0}).reset_index()[STAGE_TIMES]
    return times.sort_values(["seconds", "stage"], ascending=[False, True], ignore_index=True)


def wall_seconds(measurements: Iterable[Measurement]) -> float:
    """Seconds in which at least one of the jobs ran: pauses do not count."""
    total, until = 0.0, -math.inf
    for begin, end in sorted((each.ended - each.last_seconds, each.ended) for each in measurements):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _measurement(job: Job) -> Measurement:
    path = Path(job.benchmark)
    rows = _rows(path)
    last = sum(_column(rows, "s"))
    seconds, cpu_seconds = _attempts(path, last)
    note = path.with_suffix(".gpus.json")
    gpus = files.read_json(note) if note.exists() else {"gpus": 0, "model": ""}
    memory = max(_column(rows, "max_rss"), default=math.nan)
    return Measurement(job, seconds, cpu_seconds, last, path.stat().st_mtime, memory, gpus["gpus"], gpus["model"])


def _attempts(benchmark: Path, last: float) -> tuple[float, float]:
    """Seconds by the clock and of processors over all attempts, by the job's own note beside its benchmark file. Those
    that a job waited for a GPU do not count.

    Snakemake samples a job's processor time and misses processes that end between two samples; its time by the clock,
    that of the ``last`` attempt, counts where there is no note.
    """
    note = benchmark.with_suffix(".attempts.json")
    if not note.exists():
        return last, last
    rows = [row for row in files.read_json(note) if row["seconds"] is not None]
    seconds = [max(0.0, row["seconds"] - row.get("waited", 0)) for row in rows]
    cores = (
        mine if row["cpu_seconds"] is None else row["cpu_seconds"] for row, mine in zip(rows, seconds, strict=True)
    )
    return sum(seconds), sum(cores)


def _rows(path: str | Path) -> list[dict[str, str]]:
    names, *lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [dict(zip(names.split("\t"), line.split("\t"), strict=False)) for line in lines]


def _column(rows: list[dict[str, str]], name: str) -> list[float]:
    """The numbers of a column; Snakemake writes - or NA for what it could not measure."""
    return [float(row[name]) for row in rows if row.get(name, "-") not in ("-", "NA", "")]
