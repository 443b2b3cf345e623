"""Notes where each job's script runs, and makes it fail as jobs do: it takes the next fault that lies in its folder.

Python imports this module at its start where the folder is on PYTHONPATH; faults lie in AUGBENCH_FAULTS/SCRIPT.
"""

import os
import signal
import sys
import time
from pathlib import Path


def _script() -> str | None:
    """The rule's script that this process runs: Snakemake makes a copy, .snakemake/scripts/RANDOM.NAME.py."""
    command = sys.orig_argv[1] if len(sys.orig_argv) > 1 else ""
    return command.rsplit(".", 2)[-2] if "/.snakemake/scripts/" in command and command.endswith(".py") else None


def _take(place: Path) -> str | None:
    """The first fault that no other process has taken."""
    for file in sorted(place.glob("*")) if place.is_dir() else []:
        try:
            file.rename(place.parent / f"taken-{place.name}-{file.name}-{os.environ['SLURM_JOB_ID']}")
        except FileNotFoundError:  # another was quicker
            continue
        return file.name.split("-", 1)[1]
    return None


if "AUGBENCH_FAULTS" in os.environ and "SLURM_JOB_ID" in os.environ and (script := _script()):
    faults = Path(os.environ["AUGBENCH_FAULTS"])
    faults.mkdir(exist_ok=True)
    with open(faults / "where", "a") as file:
        file.write(f"{os.environ['SLURM_JOB_ID']}|{script}|{os.environ.get('CUDA_VISIBLE_DEVICES', '')}\n")
    fault = _take(faults / script)
    if fault == "exit":
        os._exit(1)
    if fault == "memory":
        hoard = []
        while True:
            hoard.append(b"x" * (256 << 20))
            time.sleep(0.2)
    if fault == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while fault in ("hang", "deaf"):
        time.sleep(1)
    if fault and fault.startswith("slow"):
        time.sleep(float(fault.removeprefix("slow")))
