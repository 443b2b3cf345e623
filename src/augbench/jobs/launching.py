"""Several processes for one training: accelerate starts them, one per GPU, on one machine or several."""

import contextlib
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pydantic import BaseModel

from augbench.core.collectives import group, has_gpu
from augbench.core.files import read_json, write_json
from augbench.core.processes import OURS, end_with_parent, without_launchers
from augbench.core.progress import progress


def run(
    function: Callable, job: Mapping, folder: str | Path, *, processes: int, threads: int, machines: int = 1
) -> None:
    """Call a module's ``function`` with the arguments ``job`` in several processes that share the work.

    The first process also gets ``progress``. A single process is this one. Otherwise tables in ``job`` pass
    through files in ``folder``, which is removed afterwards, and sections of the configuration through their class and
    values; everything else must be JSON. SIGTERM is passed on.

    Parameters
    ----------
    processes : in all; threads : of each; machines : that they run on, those of this SLURM job

    Raises SystemExit with the processes' exit code unless it is 0.
    """
    if processes == 1:
        function(**job, progress=progress())
        return
    folder = Path(folder)
    call = {"function": [function.__module__, function.__name__], "processes": processes}
    call["job"] = {name: _packed(name, value, folder) for name, value in job.items()}
    write_json(folder / "call.json", call)
    write_json(folder / ACCELERATE, SETTINGS)
    command = [*_launcher(folder, processes, machines, threads), "-m", __name__, str(folder / "call.json")]
    environment = without_launchers(os.environ) | {OURS: str(processes)}
    if not has_gpu():  # without it accelerate takes processes on a machine without a GPU for strangers to each other
        environment["ACCELERATE_USE_CPU"] = "true"
    try:
        # A session of its own: a signal to this one's group would reach accelerate and its processes twice.
        process = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=end_with_parent)
        with _handing_on_sigterm(process, here=machines == 1) as ended:
            code = process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if code or ended:
        raise SystemExit(128 + signal.SIGTERM if ended else code)


def _packed(name: str, value: object, folder: Path) -> dict:
    """An argument as JSON; an image table is written into ``folder``."""
    if isinstance(value, pd.DataFrame):
        table, path = pa.Table.from_pandas(value, preserve_index=False), folder / f"{name}.arrow"
        folder.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table.combine_chunks())
        return {"table": str(path)}
    if isinstance(value, BaseModel):
        section = type(value)
        return {"section": [section.__module__, section.__qualname__], "values": value.model_dump(mode="json")}
    return {"value": value}


def _unpacked(packed: Mapping) -> object:
    """The argument that :func:`_packed` wrote."""
    if "table" in packed:
        # Mapped, so that all processes have the texts of millions of images in memory once.
        return pa.ipc.open_file(pa.memory_map(packed["table"])).read_all().to_pandas()
    if "section" in packed:
        module, name = packed["section"]
        return getattr(importlib.import_module(module), name).model_validate(packed["values"])
    return packed["value"]


ACCELERATE = "accelerate.json"  # without this file the user's own settings for accelerate would count
SETTINGS = {"distributed_type": "MULTI_GPU"}  # in it; all else stands on the command line


def _launcher(folder: Path, processes: int, machines: int, threads: int) -> list[str]:
    """The command that starts the processes: accelerate here, or once on each machine of the SLURM job."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(folder / ACCELERATE)]
    options = ["--num_processes", str(processes), "--num_machines", str(machines), "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", str(threads)]
    options.append("--multi_gpu")  # on CPUs as well: with --cpu accelerate starts a single process, whatever it is told
    if machines == 1:
        return [*accelerate, *options, "--main_process_port", "0"]
    port = 20_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000  # any, but the same on each machine
    options += ["--main_process_ip", _first_machine(), "--main_process_port", str(port), "--same_network"]
    # Only on its machine does a copy know which of the job's machines that is.
    numbered = ["bash", "-c", 'exec "$0" "$1" "$2" --machine_rank "$SLURM_NODEID" "${@:3}"']
    return ["srun", "--overlap", f"--nodes={machines}", f"--ntasks={machines}", *numbered, *accelerate, *options]


def _first_machine() -> str:
    """The address of the first of this SLURM job's machines."""

    def output(*command: str) -> str:
        return subprocess.check_output(command, text=True, timeout=60)

    nodes = output("squeue", "--noheader", "--job", os.environ["SLURM_JOB_ID"], "--format", "%N").strip()
    first = output("scontrol", "show", "hostnames", nodes).split()[0]
    return re.findall(r"NodeAddr=(\S+)", output("scontrol", "show", "node", first))[0]


@contextlib.contextmanager
def _handing_on_sigterm(process: subprocess.Popen, here: bool) -> Iterator[list]:
    """Hand SIGTERM on to the processes that work, for as long as the block lasts; yields a list that then has a member.

    Not to accelerate: it would kill them 30 seconds later, perhaps in the middle of writing their state. Where they are
    not all ``here``, srun reaches them.
    """
    import psutil

    ended = []

    def end(*_):
        ended.append(True)
        workers = psutil.Process(process.pid).children(recursive=True) if here else []
        for worker in workers or [process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.terminate()

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield ended
    finally:
        signal.signal(signal.SIGTERM, before)
        if process.poll() is None:  # Ctrl-C
            process.terminate()
            process.wait()


def _main(path: str) -> None:
    call = read_json(path)
    if group().num_processes != call["processes"]:
        raise RuntimeError(f"accelerate started {group().num_processes} of {call['processes']} processes")
    job = {name: _unpacked(packed) for name, packed in call["job"].items()}
    if not group().process_index:
        job["progress"] = progress()
    module, name = call["function"]
    getattr(importlib.import_module(module), name)(**job)


if __name__ == "__main__":
    _main(sys.argv[1])
