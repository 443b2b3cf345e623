"""GPUs of a job's own, on a machine that no scheduler shares out."""

import contextlib
import fcntl
import itertools
import os
import re
import tempfile
import time
from pathlib import Path

from augbench.core import files
from augbench.jobs.logs import beside_benchmark

GPUS = Path("/proc/driver/nvidia/gpus")  # one folder for each GPU of the machine


def _note_gpus(log: str | Path, count: int) -> None:
    """Note number and model of a job's GPUs in NAME.gpus.json beside its benchmark file; nothing where it has none."""
    path = beside_benchmark(log, ".gpus.json")
    if not (count and (cards := sorted(GPUS.glob("*/information")))):
        path.unlink(missing_ok=True)  # of an earlier run on another machine
        return
    matches = [re.search(r"^Model:\s*(.*?)\s*$", card.read_text(), re.MULTILINE) for card in cards]
    models = sorted({match[1] for match in matches if match})
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
    usable = every if named is None else _visible(named)
    _note_gpus(log, count if usable else 0)
    if "SLURM_JOB_ID" in os.environ or not usable:
        return
    if count > len(usable):
        raise SystemExit(f"this job wants {count} GPUs and may use {len(usable)}: give fewer `processes`")
    folder = Path(tempfile.gettempdir()) / f"augbench-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for attempt in itertools.count():  # a job that ends, however it does, leaves its GPUs
        if attempt % 600 == 60:
            print(f"waiting for {count} of the GPUs {','.join(usable)}, which other jobs have", flush=True)
        held = {}
        for name in usable:
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
