"""GPUs are shared out among the jobs of one machine."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.middle

HOLD = """
import sys
from augbench.jobs import take_gpus
take_gpus("results/a/logs/b/c.log", int(sys.argv[1]))
sys.stdin.read()
"""


def job(count, devices, **environment):
    given = {"CUDA_VISIBLE_DEVICES": devices, "PATH": "", "TMPDIR": environment.pop("folder")} | environment
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(count)], env=given, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_no_gpu_has_two_jobs_and_the_next_gets_what_the_killed_one_had(tmp_path):
    folder = str(tmp_path)
    first, second = job(1, "0,1,2", folder=folder), job(2, "0,1,2", folder=folder)
    taken = [process.stdout.readline().split()[1].split(",") for process in (first, second)]
    assert sorted(taken[0] + taken[1]) == ["0", "1", "2"]
    third = job(2, "0,1,2", folder=folder)
    second.kill()
    second.wait()
    assert sorted(third.stdout.readline().split()[1].split(",")) == sorted(taken[1])
    for process in (first, third):
        process.kill()
        process.wait()


def test_more_gpus_than_there_are_is_an_error_and_slurms_are_left_alone(tmp_path):
    process = job(2, "7", folder=str(tmp_path))
    process.communicate()
    assert process.returncode == 1
    process = job(2, "7", folder=str(tmp_path), SLURM_JOB_ID="12")
    output, _ = process.communicate()
    assert (process.returncode, output) == (0, "")
