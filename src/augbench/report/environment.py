"""What a report was made with: versions, git state, hardware, time."""

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "snakemake",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "clip-retrieval",
    "img2dataset",
    "imagehash",
    "pandas",
)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and the packages that results depend on, and the git commit where there is one."""
    facts = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "not installed"
    commit = _output("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return facts | ({"git commit": commit} if commit else {})


@functools.cache
def hardware() -> dict[str, str]:
    """Of the machine that writes the report: system, processor, cores, memory, and GPUs where there are any."""
    facts = {"system": f"{platform.system()} {platform.release()}", "processor": _processor()}
    facts["cores"] = str(os.cpu_count())
    if hasattr(os, "sysconf"):
        facts["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    gpus = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return facts | ({"GPUs": ", ".join(gpus.splitlines())} if gpus else {})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _output(*command: str) -> str:
    """What a program says; nothing where it is missing or fails."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
