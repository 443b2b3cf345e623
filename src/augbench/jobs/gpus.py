"""GPUs of a job's own, on a machine or in an allocation that no scheduler shares out among its jobs."""

import contextlib
import fcntl
import itertools
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from augbench.core import files
from augbench.jobs.logs import beside_benchmark, note_attempt

DRIVER = Path(
    "/proc/driver/nvidia"
)  # its version, and a folder for each GPU; also in a container that has none of them
DEVICES = Path("/dev")


def models() -> list[str]:
    """The model of each NVIDIA GPU that this machine or container has.

    nvidia-smi knows them everywhere, also where there is no folder in /proc, as under Windows (WSL). Where it is not
    installed the devices are counted.
    """
    if listed := re.findall(r"^GPU \d+: (.*?)(?: \(UUID.*)?$", _output("nvidia-smi", "--list-gpus"), re.MULTILINE):
        return listed
    count = len(list(DEVICES.glob("nvidia[0-9]*")))
    cards = [card.read_text() for card in sorted(DRIVER.glob("gpus/*/information"))]
    matches = [re.search(r"^Model:\s*(.*?)\s*$", card, re.MULTILINE) for card in cards]
    return [*(match[1] if match else "NVIDIA GPU" for match in matches), *["NVIDIA GPU"] * count][:count]


def _output(*command: str) -> str:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.stdout if done.returncode == 0 else ""
    return ""


def _named() -> list[str] | None:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` names: as for CUDA, those before an empty, a negative or no number at all
    ("NoDevFiles" is SLURM's); None where it is not set."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return None
    return list(itertools.takewhile(re.compile(r"\d|GPU-|MIG-").match, map(str.strip, named.split(","))))


def usable() -> int:
    """How many GPUs the jobs of this machine may use."""
    named = _named()
    return len(models()) if named is None else len(named)


def prepare_torch() -> None:
    """Set what torch reads when it is imported, unless it is set: matrix products that give the same bits twice, and
    free memory that does not end up in pieces."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def take_gpus(log: str | Path, count: int) -> None:
    """Keep this job to ``count`` GPUs that no other job of the user's studies has, as soon as so many are free.

    The choice is among ``CUDA_VISIBLE_DEVICES``, or else all of the machine's, and ends with the process. None is made
    where there is no GPU, and in a SLURM job of several machines, each of which has others. Number and model are noted
    beside the benchmark file that belongs to ``log``, and so is the time that the job waits.

    Raises SystemExit when there are fewer than ``count``, and when torch cannot use them. A job that takes none sees
    none: models that it loads stay on the processor.
    """
    note = beside_benchmark(log, ".gpus.json")
    note.unlink(missing_ok=True)  # of an earlier run, perhaps on another machine
    if count == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    prepare_torch()
    named = _named()
    cards = [] if named == [] else models()
    if named is None:  # what only torch knows of, as on a Jetson, is taken as a whole
        named = [str(i) for i, _ in enumerate(cards)] or ([ALL] if _torch_sees_any() else [])
    if not named:
        return
    if count <= len(named):
        _take(named, count)
    elif "SLURM_JOB_ID" not in os.environ:
        raise SystemExit(f"this job wants {count} GPUs and may use {len(named)}: give fewer `processes`")
    if cards or named == [ALL]:
        files.write_json(note, {"gpus": count, "model": " or ".join(sorted(set(_checked(cards))))})


ALL = "all"  # stands for the GPUs that cannot be told apart


def _take(names: Sequence[str], count: int) -> None:
    """Wait for ``count`` of these GPUs, and let this process and those that it starts see no others."""
    began = time.monotonic()
    for attempt in itertools.count():  # a job that ends, however it does, leaves its GPUs
        if attempt % 600 == 60:
            note_attempt(waited=time.monotonic() - began)
            print(f"waiting for {count} of the GPUs {','.join(names)}, which other jobs have", flush=True)
        if held := _locked(names, count):
            break
        time.sleep(1)
    note_attempt(waited=time.monotonic() - began)
    _TAKEN.extend(held.values())
    if list(held) != [ALL]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
    print(f"GPU {','.join(held)}", flush=True)


def _locked(names: Sequence[str], count: int) -> dict:
    """Locks on ``count`` of these GPUs, by name; none at all where fewer are free: two jobs must not wait for each
    other."""
    folder = Path(tempfile.gettempdir()) / f"augbench-gpus-{os.getuid()}"
    if "SLURM_JOB_ID" in os.environ:  # two allocations of a machine may both call theirs GPU 0
        folder = folder.with_name(f"{folder.name}-{os.environ['SLURM_JOB_ID']}")
    folder.mkdir(mode=0o700, exist_ok=True)
    held = {}
    for name in names:
        lock = open(folder / name.replace("/", "_"), "w")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held[name] = lock
        if len(held) == count:
            return held
    for lock in held.values():
        lock.close()
    return {}


_TAKEN: list = []  # open for as long as the process lives: that is what holds a lock


def _torch_sees_any() -> bool:
    import torch

    return torch.cuda.is_available()


def _checked(cards: Sequence[str]) -> list[str]:
    """The models of the GPUs that were taken, by torch's account. Raises SystemExit when torch cannot use one: it would
    compute on the processor for days, and nobody would notice."""
    from torch import cuda

    if not cuda.is_available():
        raise SystemExit(_unusable(f"this machine's {cards[0] if cards else 'GPU'}", "update it or torch"))
    for i in range(cuda.device_count()):
        (major, minor), built = cuda.get_device_capability(i), cuda.get_arch_list()
        if not is_supported((major, minor), built):
            raise SystemExit(
                _unusable(
                    f"the {cuda.get_device_name(i)} of compute capability {major}.{minor}",
                    f"install a torch for sm_{major}{minor}, which this one, for {', '.join(built)}, is not",
                )
            )
    return [cuda.get_device_name(i) for i in range(cuda.device_count())]


def _unusable(card: str, remedy: str) -> str:
    import torch

    version = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", _text(DRIVER / "version"))
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return (
        f"torch {torch.__version__}, built {built}, cannot use {card} with the driver "
        f"{version[1] if version else 'that is installed'}: {remedy}, or compute on the processor with "
        "CUDA_VISIBLE_DEVICES= before the command"
    )


def is_supported(capability: tuple[int, int], built: Sequence[str]) -> bool:
    """Whether a GPU can run what was built for these architectures, e.g. ``sm_80``: machine code runs on later GPUs of
    the same generation, intermediate code (``compute_80``) on all later ones."""
    for name in built:
        match = re.fullmatch(r"([a-z]+)_(\d+)(\d)[a-z]?", name)
        if not match:
            continue
        kind, known = match[1], (int(match[2]), int(match[3]))
        if capability >= known and (kind == "compute" or capability[0] == known[0]):
            return True
    return not built  # torch does not say, as where it is built for other makers' GPUs


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
