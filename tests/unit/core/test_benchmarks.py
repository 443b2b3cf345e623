"""What jobs took, read from benchmark files and the notes beside them."""

import math
import os

import pytest

from augbench.core import benchmarks, files
from augbench.core.benchmarks import Job


def job(folder, stage, name, seconds, memory="300", ended=None):
    path = folder / stage / f"{name}.tsv"
    files.write_text(path, f"s\th:m:s\tmax_rss\n{seconds}\t0:01:00\t{memory}\n")
    if ended is not None:
        os.utime(path, (ended, ended))
    return Job(str(path), stage)


def test_times_add_up_per_stage(tmp_path):
    jobs = [job(tmp_path, "classify", "a", 61), job(tmp_path, "classify", "b", 10, "-"), job(tmp_path, "audit", "a", 5)]
    times = benchmarks.stage_times(benchmarks.measure(jobs))
    assert list(times.itertuples(index=False, name=None)) == [("classify", 2, 71.0, 300.0), ("audit", 1, 5.0, 300.0)]
    assert list(benchmarks.stage_times([])) == benchmarks.STAGE_TIMES


def test_only_the_jobs_of_the_present_configuration_count(tmp_path):
    """Runs 1 to 3 were one job; now 1 to 5 are, and a job that was not run has no file."""
    job(tmp_path, "classify", "none-x0-1-3", 30)
    now = job(tmp_path, "classify", "none-x0-1-5", 50)
    (measured,) = benchmarks.measure([now, Job(str(tmp_path / "classify" / "other.tsv"), "classify")])
    assert (measured.job, measured.seconds) == (now, 50)


def test_attempts_and_gpus_come_from_the_notes(tmp_path):
    noted = job(tmp_path, "finetune", "a", 7)
    attempts = [{"seconds": 10, "cpu_seconds": 25}, {"seconds": 4, "cpu_seconds": None}]
    running = {"seconds": None, "cpu_seconds": None}
    files.write_json(tmp_path / "finetune" / "a.attempts.json", [*attempts, running])
    files.write_json(tmp_path / "finetune" / "a.gpus.json", {"gpus": 8, "model": "V100"})
    (found,) = benchmarks.measure([noted])
    assert (found.seconds, found.cpu_seconds, found.last_seconds) == (14, 29, 7)
    assert (found.gpus, found.gpu_model) == (8, "V100")
    (plain,) = benchmarks.measure([job(tmp_path, "audit", "b", 3, "NA")])
    assert (plain.seconds, plain.cpu_seconds, plain.gpus, plain.gpu_model) == (3, 3, 0, "")
    assert math.isnan(plain.max_rss_mb)


def test_waiting_for_a_gpu_is_no_work(tmp_path):
    """A killed attempt of 10 s that waited for 8 of them, then one of 5 s that waited for 1; by the wall clock jobs of
    the machine go on meanwhile."""
    noted = job(tmp_path, "finetune", "a", 5)
    attempts = [{"seconds": 10, "cpu_seconds": None, "waited": 8}, {"seconds": 5, "cpu_seconds": 3, "waited": 1}]
    files.write_json(tmp_path / "finetune" / "a.attempts.json", attempts)
    (found,) = benchmarks.measure([noted])
    assert (found.seconds, found.cpu_seconds, found.last_seconds) == (2 + 4, 2 + 3, 5)


def test_wall_time_counts_overlaps_once_and_pauses_never(tmp_path):
    """Jobs from 0 to 10 s, 5 to 15 s and 100 to 101 s: 16 s."""
    spans = {"a": (10, 10), "b": (10, 15), "c": (1, 101)}
    jobs = [job(tmp_path, "stage", name, seconds, ended=1e9 + end) for name, (seconds, end) in spans.items()]
    assert benchmarks.wall_seconds(benchmarks.measure(jobs)) == pytest.approx(16)
    assert benchmarks.wall_seconds([]) == 0


def test_a_benchmark_file_that_is_not_complete_has_no_seconds(tmp_path):
    for text in ("", "s\tmax_rss\n", "s\tmax_rss\nhalf"):
        files.write_text(tmp_path / "a.tsv", text)
        assert benchmarks.last_seconds(tmp_path / "a.tsv") is None
    assert benchmarks.last_seconds(tmp_path / "none.tsv") is None
    assert benchmarks.last_seconds("") is None
    files.write_text(tmp_path / "a.tsv", "s\tmax_rss\n2.5\t1\n")
    assert benchmarks.last_seconds(tmp_path / "a.tsv") == 2.5
