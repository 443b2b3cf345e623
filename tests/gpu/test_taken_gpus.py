"""A job takes a GPU of its own, sees no other, and notes which it was."""

import json
import os
import subprocess
import sys

import pytest
import torch

from augbench.jobs import gpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="what is taken is a GPU"),
]

JOB = """
import sys
from augbench.jobs.gpus import take_gpus
take_gpus(sys.argv[1], int(sys.argv[2]))
import torch
print("sees", torch.cuda.device_count(), flush=True)
sys.stdin.read()
"""


def start(folder, count=1, **environment):
    """A job; closing its standard input ends it."""
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"} | environment
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)}
    command = [sys.executable, "-c", JOB, str(folder / "logs" / "a" / "b.log"), str(count)]
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_the_machine_lists_its_gpus():
    assert torch.cuda.get_device_name(0) in gpus.models()
    assert gpus.is_supported(torch.cuda.get_device_capability(0), torch.cuda.get_arch_list())


def test_a_job_has_its_gpu_alone_and_the_next_waits(tmp_path):
    everything = ",".join(str(i) for i in range(torch.cuda.device_count()))
    first = start(tmp_path, torch.cuda.device_count())
    assert [first.stdout.readline() for _ in range(2)] == [f"GPU {everything}\n", f"sees {torch.cuda.device_count()}\n"]
    note = json.loads((tmp_path / "benchmarks" / "a" / "b.gpus.json").read_text())
    assert torch.cuda.get_device_name(0) in note["model"]
    second = start(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=3)
    first.communicate()
    assert second.stdout.readline().startswith("GPU ")
    assert second.stdout.readline() == "sees 1\n"
    second.communicate()


def test_a_job_without_a_gpu_sees_none(tmp_path):
    for job in (start(tmp_path, 0), start(tmp_path, 1, CUDA_VISIBLE_DEVICES="")):
        assert job.communicate()[0] == "sees 0\n"
