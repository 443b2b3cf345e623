"""What every job needs: a log that also holds uncaught errors, GPUs of its own, progress with remaining time."""

import atexit
import contextlib
import fcntl
import itertools
import os
import re
import resource
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path

from augbench import files, waiting

GPUS = Path("/proc/driver/nvidia/gpus")  # one folder for each GPU of the machine


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
    waiting.forget_launchers()


def print_error(kind: type[BaseException], error: BaseException, trace) -> None:
    """Print an error that augbench raises itself as its sentence, any other with its traceback; a ``sys.excepthook``.

    What the user's files, configuration or network can cause is raised by augbench, with what to do about it.
    """
    place = traceback.extract_tb(trace)[-1] if trace else None
    raised_here = place and Path(place.filename).parent == Path(__file__).parent and place.line.startswith("raise ")
    if isinstance(error, files.BadInput) or (raised_here and str(error)):
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, trace)


def _beside_benchmark(log: str | Path, suffix: str) -> Path:
    """``.../benchmarks/STAGE/NAME`` and a suffix, of the log ``.../logs/STAGE/NAME.log``: rules name both alike."""
    folder, name = str(Path(log).with_suffix(suffix)).rsplit("/logs/", 1)
    return Path(folder, "benchmarks", name)


def _note_attempt(log: Path) -> None:
    """Note, when this process ends, its time by the clock and the processor's, beside the job's benchmark file.

    Snakemake samples a job's processor time, and the processes that ended between two samples are missing in it. The
    note, NAME.attempts.json, is a list: attempts since the job was last done, with ``begun`` (seconds since 1970),
    ``seconds`` and ``cpu_seconds``, user and system of the process and of its children that ended. An attempt that was
    killed lasted until its log's last line; its ``cpu_seconds`` are null.
    """
    note, benchmark = _beside_benchmark(log, ".attempts.json"), _beside_benchmark(log, ".tsv")
    attempts = files.read_json(note) if note.exists() else []
    if benchmark.exists() and note.exists() and benchmark.stat().st_mtime >= note.stat().st_mtime:
        attempts = []  # Snakemake writes the benchmark file when a job is done: this one begins anew
    for attempt in attempts:
        if attempt["seconds"] is None:
            ended = log.stat().st_mtime if log.exists() else attempt["begun"]
            attempt["seconds"] = max(0.0, ended - attempt["begun"])
    mine = {"begun": time.time(), "seconds": None, "cpu_seconds": None}
    attempts.append(mine)
    files.write_json(note, attempts)
    process = os.getpid()

    def end() -> None:
        if os.getpid() != process:  # a copy of this process
            return
        spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        mine["seconds"] = time.time() - mine["begun"]
        mine["cpu_seconds"] = sum(each.ru_utime + each.ru_stime for each in spent)
        files.write_json(note, attempts)

    atexit.register(end)


def share_library() -> None:
    """Let jobs find augbench also in an environment that holds nothing but its packages (``--sdm conda``)."""
    given = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), given]))


def _note_gpus(log: str | Path, count: int) -> None:
    """Note number and model of a job's GPUs in NAME.gpus.json beside its benchmark file; nothing where it has none."""
    path = _beside_benchmark(log, ".gpus.json")
    if not (count and (cards := sorted(GPUS.glob("*/information")))):
        path.unlink(missing_ok=True)  # of an earlier run on another machine
        return
    found = [re.search(r"^Model:\s*(.*?)\s*$", card.read_text(), re.MULTILINE) for card in cards]
    models = sorted({match[1] for match in found if match})
    files.write_json(path, {"gpus": count, "model": " or ".join(models) or "unknown"})


def _visible(named: str) -> list[str]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` names: as for CUDA, those before an empty or a negative one."""
    return list(itertools.takewhile(lambda name: name and not name.startswith("-"), map(str.strip, named.split(","))))


def take_gpus(log: str | Path, count: int) -> None:
    """Keep this job to ``count`` GPUs that no other job of the user's studies has, as soon as so many are free.

    Their number and model are noted beside the benchmark file that belongs to ``log``. The choice is among
    ``CUDA_VISIBLE_DEVICES``, or else all of the machine's, and ends with the process. None is made where there is no
    GPU, and under SLURM, which has given the job its own. Raises SystemExit when there are fewer than ``count``. A job
    that takes none sees none: models that it loads stay on the processor.
    """
    if count == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = [str(i) for i, _ in enumerate(GPUS.glob("*"))]
    found = every if named is None else _visible(named)
    _note_gpus(log, count if found else 0)
    if "SLURM_JOB_ID" in os.environ or not found:
        return
    if count > len(found):
        raise SystemExit(f"this job wants {count} GPUs and may use {len(found)}: give fewer `processes`")
    folder = Path(tempfile.gettempdir()) / f"augbench-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for attempt in itertools.count():  # a job that ends, however it does, leaves its GPUs
        if attempt % 600 == 60:
            print(f"waiting for {count} of the GPUs {','.join(found)}, which other jobs have", flush=True)
        held = {}
        for name in found:
            lock = open(folder / name.replace("/", "_"), "w")
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held[name] = lock
            if len(held) == count:
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
                print(f"GPU {os.environ['CUDA_VISIBLE_DEVICES']}", flush=True)
                _TAKEN.extend(held.values())
                return
        for lock in held.values():  # all or none: two jobs must not wait for each other
            lock.close()
        time.sleep(1)


_TAKEN: list = []  # open for as long as the process lives: that is what holds a lock


def progress(every: float = 10.0):
    """A callback (done, total, note) that prints share, rate and remaining time at most every few seconds."""
    start = last = None

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal start, last
        now = time.monotonic()
        if start is None:  # what came before the first call, imports above all, says nothing about the rate
            start = last = now
        if done < total and now - last < every:
            return
        last = now
        rate = done / max(now - start, 1e-9)
        left = (total - done) / rate if rate else float("inf")
        print(f"{done}/{total} ({done / total:.0%}) {note}, {rate:.3g}/s, {left:.0f} s left", flush=True)

    return report
