"""How far a running workflow is: a page per study that refreshes itself, and a line per stage in the terminal."""

import base64
import hashlib
import logging
import re
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from augbench.core import benchmarks, files, pages

EVERY = 10  # seconds between two pages
PRINT_EVERY = 60  # seconds between two lines of the same stage in the terminal
TAIL = 30  # lines of a failed job's log
# Loads the page again, which a reader can pause; a refresh by the page's head could not be.
RELOAD = """
const button = document.querySelector("button");
const later = () => setTimeout(() => location.reload(), 1000 * button.dataset.seconds);
let timer = later();
button.addEventListener("click", () => {
  timer = timer ? clearTimeout(timer) : later();
  button.textContent = timer ? "Pause" : "Go on";
});
"""
STATES = ("done", "running", "failed", "to do")


class Job(NamedTuple):
    """A job of the workflow: its stage, what it is for, its log files and its benchmark file (empty without)."""

    stage: str
    study: str
    method: str
    logs: tuple[str, ...] = ()
    benchmark: str = ""
    needed: bool = True


class Failure(NamedTuple):
    stage: str
    study: str
    method: str
    log: str
    tail: str


class Progress:
    """What is known of a run's jobs, by their number. Times are seconds of one clock, given by the caller."""

    def __init__(self, jobs: Mapping[int, Job], now: float):
        self.jobs = dict(jobs)
        self.begun = now
        self.states = {key: "to do" if job.needed else "done" for key, job in self.jobs.items()}
        self.since: dict[int, float] = {}
        self.seconds: dict[str, list[float]] = {}
        self.before = _measured_before(self.jobs.values())
        self.failure: Failure | None = None
        self.end = ""  # how the run ended: finished, failed

    def started(self, keys: Iterable[int], now: float) -> None:
        for key in keys:
            if key in self.jobs:
                self.states[key] = "running"
                self.since[key] = now

    def finished(self, key: int, now: float) -> None:
        if key in self.jobs:
            self.states[key] = "done"
            if key in self.since:
                self.seconds.setdefault(self.jobs[key].stage, []).append(now - self.since.pop(key))

    def failed(self, key: int, logs: Iterable[str]) -> None:
        """A job failed; its last log file that there is tells why."""
        if key not in self.jobs:
            return
        self.states[key] = "failed"
        self.since.pop(key, None)
        job = self.jobs[key]
        existing = [path for path in (*job.logs, *logs) if Path(path).is_file()]
        path = existing[0] if existing else ""
        self.failure = Failure(job.stage, job.study, job.method, path, tail(path) if path else "")

    def jobs_in(self, study: str) -> dict[int, Job]:
        """A study's jobs, and those of all studies together."""
        return {key: job for key, job in self.jobs.items() if job.study in (study, "")}

    def stages(self, study: str | None = None) -> list[dict]:
        """Per stage, in the order in which their last jobs come: numbers of jobs by state, seconds of a job (None
        where no job was measured) and of all that is left to do, one after the other."""
        counts_of: dict[str, Counter] = {}
        for key, job in (self.jobs if study is None else self.jobs_in(study)).items():
            counts_of.setdefault(job.stage, Counter())[self.states[key]] += 1
        rows, last = [], {job.stage: place for place, job in enumerate(self.jobs.values())}
        for stage, counts in sorted(counts_of.items(), key=lambda item: last[item[0]]):
            took = self.took(stage)
            left = counts["to do"] + counts["running"] + counts["failed"]
            row = {"stage": stage, **{state: counts[state] for state in STATES}, "seconds": took}
            rows.append(row | {"left": None if took is None and left else (took or 0) * left})
        return rows

    def took(self, stage: str) -> float | None:
        """Seconds of a job of this stage: measured in this run, or else in one before."""
        known = self.seconds.get(stage) or self.before.get(stage)
        return statistics.fmean(known) if known else None

    def methods(self, study: str) -> dict[str, dict[str, str]]:
        """Method -> stage -> "done/all" and how many run or failed, for the jobs that belong to a method."""
        counts: dict[str, dict[str, Counter]] = {}
        for key, job in self.jobs_in(study).items():
            if job.method:
                counts.setdefault(job.method, {}).setdefault(job.stage, Counter())[self.states[key]] += 1
        return {method: {stage: _cell(each) for stage, each in stages.items()} for method, stages in counts.items()}

    def remaining(self, now: float) -> tuple[float | None, bool]:
        """Seconds until all is done, at the rate and with the jobs side by side that were measured; and whether
        every stage that has jobs left was measured. None where nothing was."""
        stages = [row for row in self.stages() if row["to do"] + row["running"] + row["failed"]]
        known = [row["left"] for row in stages if row["left"] is not None]
        if stages and not known:
            return None, False
        spent = sum(now - began for began in self.since.values())
        work = max(0.0, sum(known) - spent)
        busy = sum(map(sum, self.seconds.values())) + spent
        return work / max(1.0, busy / max(now - self.begun, 1e-9)), len(known) == len(stages)


def _cell(counts: Counter) -> str:
    extra = [f"{counts[state]} {state}" for state in ("running", "failed") if counts[state]]
    return ", ".join([f"{counts['done']}/{counts.total()}", *extra])


def _measured_before(jobs: Iterable[Job]) -> dict[str, list[float]]:
    """Stage -> seconds of its jobs in earlier runs, from their benchmark files."""
    measured: dict[str, list[float]] = {}
    for job in jobs:
        seconds = benchmarks.last_seconds(job.benchmark)
        if seconds is not None:
            measured.setdefault(job.stage, []).append(seconds)
    return measured


def tail(path: str | Path, lines: int = TAIL) -> str:
    """The last lines of a text file."""
    with open(path, "rb") as file:
        file.seek(max(0, Path(path).stat().st_size - 64 * 1024))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def duration(seconds: float) -> str:
    """Seconds as text: 12 s, 4 min or 3 h 07 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def lines(progress: Progress) -> dict[str, str]:
    """Stage -> its line for the terminal."""
    sentences = {}
    for row in progress.stages():
        counts = ", ".join(f"{row[state]} {state}" for state in STATES if row[state])
        left = f"; {duration(row['left'])} of work left" if row["left"] else ""
        sentences[row["stage"]] = f"{row['stage']}: {counts}{left}"
    return sentences


def page(progress: Progress, study: str, now: float, written: str) -> str:
    """The status page of a study; ``written`` is the time of day on it."""
    from markupsafe import Markup

    left, whole = progress.remaining(now)
    stages, methods = progress.stages(study), progress.methods(study)
    return pages.template("status.html.j2", duration=duration).render(
        study=study,
        stages=stages,
        methods=methods,
        columns=[row["stage"] for row in stages if any(row["stage"] in cells for cells in methods.values())],
        total={state: sum(row[state] for row in stages) for state in STATES},
        left=left,
        whole=whole,
        failure=progress.failure,
        end=progress.end,
        written=written,
        every=EVERY,
        elapsed=now - progress.begun,
        script=Markup(RELOAD),
        digest=base64.b64encode(hashlib.sha256(RELOAD.encode()).digest()).decode(),
    )


# --- while the workflow runs


class Watch(logging.Handler):
    """Follows what the workflow's logger says of its jobs and keeps the pages and the terminal up to date.

    Records have an ``event``: job_started (with ``jobs``, their numbers), job_finished (``job_id``) or job_error
    (``jobid`` and ``log``); others are passed over.
    """

    def __init__(
        self, jobs: Mapping[int, Job], studies: Iterable[str], folder: str | Path = "results", clock=time.monotonic
    ):
        super().__init__()
        self.clock, self.folder = clock, Path(folder)
        self.logger: logging.Logger | None = None
        self.progress = Progress(jobs, clock())
        known = {job.study for job in self.progress.jobs.values()}
        self.studies = [study for study in studies if study in known]
        self.guard = threading.Lock()
        self.over = threading.Event()
        self.printed: dict[str, str] = lines(self.progress)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self, logger: logging.Logger) -> None:
        """Begin to listen and to write; ends with :meth:`stop`, or with the process."""
        self.logger = logger
        logger.addHandler(self)
        self.thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        facts, now = vars(record), self.clock()
        with self.guard:
            match str(facts.get("event", "")):
                case "job_started":
                    self.progress.started(facts["jobs"], now)
                case "job_finished":
                    self.progress.finished(facts["job_id"], now)
                case "job_error":
                    self.progress.failed(facts["jobid"], facts["log"])

    def _run(self) -> None:
        ended, last = False, self.clock()
        while True:
            try:
                self.write()
            except OSError as error:  # a full disk ends the jobs, not their description
                print(f"status.html could not be written: {error}", file=sys.stderr)
            if ended:
                return
            ended = self.over.wait(EVERY)
            if self.clock() - last >= PRINT_EVERY:
                last = self.clock()
                self.tell()

    def write(self) -> None:
        """Write each study's page, whole."""
        written = time.strftime("%Y-%m-%d %H:%M:%S")
        with self.guard:
            texts = {study: page(self.progress, study, self.clock(), written) for study in self.studies}
        for study, text in texts.items():
            files.write_text(self.folder / study / "status.html", text)

    def tell(self) -> None:
        """Print the lines of the stages that changed since they were last printed."""
        with self.guard:
            now = lines(self.progress)
        for stage, line in now.items():
            if line != self.printed.get(stage):
                print(line, file=sys.stderr, flush=True)
        self.printed = now

    def stop(self, end: str) -> None:
        """The run has ended: ``finished`` or ``failed``."""
        if self.logger:
            self.logger.removeHandler(self)
        with self.guard:
            self.progress.end = end
        self.over.set()
        self.thread.join(timeout=30)
        self.tell()


RUNNING: list[Watch] = []  # none, or that of the run that this process controls


def watch(dag, studies: Iterable[str], logger: logging.Logger) -> None:
    """Follow a run of Snakemake on each study's page; the run goes on without, should that fail."""
    try:
        jobs = {
            job.jobid: _job(job, dag.needrun(job))
            for level in dag.toposorted()
            for job in sorted(level, key=lambda job: job.rule.name)
            if job.rule.script
        }
        RUNNING.append(Watch(jobs, studies))
        RUNNING[-1].start(logger)
    except Exception as error:
        print(f"status.html will not be kept: {error!r}", file=sys.stderr)


def _job(job, needed: bool) -> Job:
    return Job(
        stage=re.sub(r"_[0-9]+$", "", job.rule.name),
        study=job.wildcards_dict.get("study", ""),
        method=job.wildcards_dict.get("method", ""),
        logs=tuple(map(str, job.log)),
        benchmark=str(job.benchmark or ""),
        needed=needed,
    )


def stop_watching(end: str) -> None:
    """The run that :func:`watch` follows has ended: ``finished`` or ``failed``."""
    while RUNNING:
        RUNNING.pop().stop(end)
