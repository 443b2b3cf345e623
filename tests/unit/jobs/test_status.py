import logging
import threading

import pytest

from augbench.jobs import status
from augbench.jobs.status import Job, Progress


def _progress(tmp_path):
    """Two finished stages, three of the method m and one that needs nothing."""
    log = tmp_path / "b.log"
    log.write_text("\n".join(f"line {i} <b>" for i in range(50)) + "\nValueError: no")
    jobs = {
        1: Job("split", "s", "", needed=False),
        2: Job("train", "s", "m"),
        3: Job("train", "s", "m"),
        4: Job("train", "s", "other", logs=(str(tmp_path / "none.log"), str(log))),
        6: Job("train", "t", "m"),
        5: Job("report", "", ""),
    }
    return Progress(jobs, 100.0), log


def test_counts_follow_what_happens(tmp_path):
    progress, log = _progress(tmp_path)
    assert [(row["stage"], row["done"], row["to do"]) for row in progress.stages("s")] == [
        ("split", 1, 0),
        ("train", 0, 3),
        ("report", 0, 1),
    ]
    assert progress.remaining(100.0) == (None, False)
    progress.started([2, 3, 99], 100.0)
    progress.finished(2, 110.0)
    progress.started([4], 110.0)
    progress.failed(4, [])
    assert progress.methods("s") == {"m": {"train": "1/2, 1 running"}, "other": {"train": "0/1, 1 failed"}}
    (train,) = [row for row in progress.stages("s") if row["stage"] == "train"]
    assert [train[key] for key in ("done", "running", "failed", "to do", "seconds", "left")] == [1, 1, 1, 0, 10, 20]
    assert progress.failure[:4] == ("train", "s", "other", str(log))
    assert progress.failure.tail.splitlines()[0] == "line 21 <b>" and progress.failure.tail.endswith("ValueError: no")
    progress.started([4], 111.0)  # Snakemake tries again
    assert progress.methods("s")["other"]["train"] == "0/1, 1 running"


def test_remaining_time_worked_by_hand(tmp_path):
    """At 120 s one job took 10 s and another runs for 20 s: 30 s of work in 20 s, so one and a half at a time. Left
    are three jobs of 10 s, of which 20 s are spent; the report was never measured."""
    progress, _ = _progress(tmp_path)
    progress.started([2, 3], 100.0)
    progress.finished(2, 110.0)
    assert progress.remaining(120.0) == (pytest.approx((3 * 10 - 20) / 1.5), False)
    for key in (3, 4, 6, 5):
        progress.started([key], 120.0)
        progress.finished(key, 121.0)
    assert progress.remaining(130.0) == (0, True)


def test_jobs_of_earlier_runs_tell_the_rate(tmp_path):
    benchmark = tmp_path / "a.tsv"
    benchmark.write_text("s\th:m:s\n30.0\t0:00:30\n")
    (tmp_path / "half.tsv").write_text("s\th:m:s\n")
    jobs = {
        k: Job("train", "s", "m", benchmark=str(tmp_path / name)) for k, name in enumerate(["a.tsv", "half.tsv", "c"])
    }
    progress = Progress(jobs, 0.0)
    assert progress.took("train") == 30
    assert progress.remaining(0.0) == (90, True)
    progress.started([0], 0.0)
    progress.finished(0, 10.0)
    assert progress.took("train") == 10


def test_the_page_escapes_what_comes_from_outside(tmp_path):
    progress, _ = _progress(tmp_path)
    progress.failed(4, [])
    text = status.page(progress, "<script>", 107.0, "now")
    assert "&lt;script&gt;: running" in text and text.count("<script") == 1  # its own
    assert "line 30 &lt;b&gt;" in text and "7 s after the start" in text
    progress.end = "finished"
    assert "<script" not in status.page(progress, "s", 107.0, "now")


def test_lines_name_only_what_there_is(tmp_path):
    progress, _ = _progress(tmp_path)
    progress.started([2], 100.0)
    progress.finished(2, 300.0)
    assert status.lines(progress) == {
        "split": "split: 1 done",
        "train": "train: 1 done, 3 to do; 10 min of work left",
        "report": "report: 1 to do",
    }


def test_events_reach_the_page_and_the_terminal(tmp_path, capsys):
    watch = status.Watch({7: Job("train", "s", "m")}, ["s", "absent"], tmp_path)
    logger = logging.getLogger("workflow")
    watch.start(logger)
    level, logger.level = logger.level, logging.INFO
    try:
        logger.info("Execute", extra={"event": "job_started", "jobs": [7]})
        logger.info("Finished", extra={"event": "job_finished", "job_id": 7})
        watch.stop("finished")
    finally:
        logger.level = level
    assert not watch.thread.is_alive() and watch.thread not in threading.enumerate()
    text = (tmp_path / "s" / "status.html").read_text()
    assert "s: finished" in text and "1 of 1 jobs done" in text
    assert not (tmp_path / "absent").exists()
    assert "train: 1 done" in capsys.readouterr().err
