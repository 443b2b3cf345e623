"""The log of a job: all that it prints, its uncaught error as one sentence, and what it took."""

import atexit
import os
import resource
import socket
import sys
import time
import traceback
from pathlib import Path

from augbench.core import files, processes

PACKAGE = Path(__file__).parents[1]
SILENCE = 60  # seconds that a job waits for a byte from a network, where nothing else is said


def log_to(path: str) -> None:
    """Send what the job and its child processes print, and an uncaught error, to its log file; note what it takes."""
    if "/logs/" in path:
        _note_attempt(Path(path))
    log = open(path, "w", buffering=1, encoding="utf-8")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    sys.excepthook = print_error
    socket.setdefaulttimeout(SILENCE)  # a library that fetches a model may set none
    processes.forget_launchers()


def print_error(kind: type[BaseException], error: BaseException, trace) -> None:
    """Print an error that augbench raises itself as its sentence, any other with its traceback; a ``sys.excepthook``.

    What the user's files, configuration or network can cause is raised by augbench, with what to do about it.
    """
    place = traceback.extract_tb(trace)[-1] if trace else None
    raised_here = place and Path(place.filename).is_relative_to(PACKAGE) and (place.line or "").startswith("raise ")
    if isinstance(error, files.BadInput) or (raised_here and str(error)):
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, trace)


def beside_benchmark(log: str | Path, suffix: str) -> Path:
    """``.../benchmarks/STAGE/NAME`` and a suffix, of the log ``.../logs/STAGE/NAME.log``: rules name both alike."""
    folder, name = str(Path(log).with_suffix(suffix)).rsplit("/logs/", 1)
    return Path(folder, "benchmarks", name)


def _note_attempt(log: Path) -> None:
    """Note, when this process ends, its time by the clock and the processor's, beside the job's benchmark file.

    Snakemake samples a job's processor time, and the processes that ended between two samples are missing in it. The
    note, NAME.attempts.json, is a list: attempts since the job was last done, with ``begun`` (seconds since 1970),
    ``seconds`` and ``cpu_seconds``, user and system of the process and of its children that ended, and what
    :func:`note_attempt` adds. An attempt that was killed lasted until its log's last line, and its ``cpu_seconds`` are
    null.
    """
    note, benchmark = beside_benchmark(log, ".attempts.json"), beside_benchmark(log, ".tsv")
    attempts = files.read_json(note) if note.exists() else []
    if benchmark.exists() and note.exists() and benchmark.stat().st_mtime >= note.stat().st_mtime:
        attempts = []  # Snakemake writes the benchmark file when a job is done: this one begins anew
    for attempt in attempts:
        if attempt["seconds"] is None:
            ended = log.stat().st_mtime if log.exists() else attempt["begun"]
            attempt["seconds"] = max(0.0, ended - attempt["begun"])
    begun = time.time()
    attempts.append({"begun": begun, "seconds": None, "cpu_seconds": None})
    _NOTED[:] = [(note, attempts)]
    note_attempt()
    process = os.getpid()

    def end() -> None:
        if os.getpid() != process:  # a copy of this process
            return
        spent = [resource.getrusage(processes) for processes in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        note_attempt(seconds=time.time() - begun, cpu_seconds=sum(each.ru_utime + each.ru_stime for each in spent))

    atexit.register(end)


_NOTED: list = []  # the note of this process's job and the attempts in it, once there is one


def note_attempt(**facts: float) -> None:
    """Add facts to the note of this attempt at its job, e.g. ``waited``, seconds that it waited for a GPU; nothing
    where none is kept."""
    for note, attempts in _NOTED:
        attempts[-1] |= facts
        files.write_json(note, attempts)


def share_library() -> None:
    """Let jobs find augbench also in an environment that holds nothing but its packages (``--sdm conda``)."""
    existing = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE.parent), existing]))
