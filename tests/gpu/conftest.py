"""Tests on a real GPU: `make test-gpu`, or `PYTHONPATH=src python -m pytest tests/gpu` in a source checkout with torch,
diffusers, transformers, accelerate, safetensors, pandas, pyarrow, pillow, pydantic and pyyaml alone; those of adapters
want peft as well and are skipped without it.

They are skipped where torch sees no GPU, and nothing else skips them. `--rehearse` runs them on the CPU nevertheless,
with a tiny pipeline where they want one of full size: to see that they run at all.
"""

import gc
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from augbench.jobs import gpus

gpus.prepare_torch()

import gpu_stages
import numpy as np
import pytest
import torch
from random_pipelines import roomy_folder

HAS_GPU = torch.cuda.is_available()


def pytest_addoption(parser):
    parser.addoption("--rehearse", action="store_true", help="run the tests of a GPU on the CPU")
    parser.addoption("--pipeline", type=Path, help="folder of Stable Diffusion with random weights, kept between runs")


def pytest_collection_modifyitems(config, items):
    if HAS_GPU or config.getoption("--rehearse"):
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU here; --rehearse runs it on the CPU"))


def pytest_report_header():
    return f"GPU: {torch.cuda.get_device_name() if HAS_GPU else 'none'}, torch {torch.__version__}"


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> gpu_stages.Material:
    """Tiny, written on the GPU and read by both sides of a comparison."""
    return gpu_stages.make(tmp_path_factory.mktemp("material"))


class Reference:
    """What the CPU computes of the same material, in a process of its own beside the tests."""

    def __init__(self, material: gpu_stages.Material, out: Path):
        self.out = out
        arguments = {"material": str(material.folder), "out": str(out), "stages": list(gpu_stages.STAGES)}
        self.process = subprocess.Popen(
            [sys.executable, gpu_stages.__file__, json.dumps(arguments)],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=open(out / "log", "w"),
            stderr=subprocess.STDOUT,
        )

    def __call__(self, name: str) -> dict:
        assert self.process.wait(timeout=900) == 0, (self.out / "log").read_text()[-2000:]
        return dict(np.load(self.out / f"{name}.npz"))


@pytest.fixture(scope="session")
def reference(material, tmp_path_factory) -> Iterator[Reference]:
    reference = Reference(material, tmp_path_factory.mktemp("reference"))
    yield reference
    reference.process.kill()
    reference.process.wait()


@pytest.fixture(scope="session")
def full(request) -> Iterator[gpu_stages.Material]:
    """Stable Diffusion v1.4's exact architecture with random weights, and pictures of 512 pixels."""
    kept = request.config.getoption("--pipeline")
    with tempfile.TemporaryDirectory(prefix="augbench-gpu-", dir=roomy_folder(25)) as folder:
        size, side = ("v1.4", 512) if HAS_GPU else ("tiny", 32)
        yield gpu_stages.make(Path(folder), size, side, train=32, validation=4, pipeline=kept)


@pytest.fixture(autouse=True)
def fresh():
    """What one test leaves in this process, the next does not see."""
    yield
    torch.use_deterministic_algorithms(False)
    gc.collect()
    if HAS_GPU:
        torch.cuda.empty_cache()


@pytest.fixture
def digest():
    """A function: a digest of each file below a folder, by its name there; without image tables, which name the place
    of their shard, and without what a killed process left under hidden names."""

    def digest(folder: Path) -> dict[str, str]:
        names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
        visible = [name for name in names if not name.startswith(".") and "/." not in name]
        return {name: _digest(folder / name) for name in visible if Path(name).name != "images.parquet"}

    return digest


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]
