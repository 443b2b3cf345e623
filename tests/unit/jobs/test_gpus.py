"""GPUs are shared out among the jobs of one machine, or of one allocation."""

import linecache
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from augbench.core import files
from augbench.jobs import gpus, logs

pytestmark = pytest.mark.middle

HOLD = """
import sys
from augbench.jobs.gpus import take_gpus
take_gpus("results/a/logs/b/c.log", int(sys.argv[1]))
sys.stdin.read()
"""


def job(count, devices, **environment):
    given = {"CUDA_VISIBLE_DEVICES": devices, "PATH": "", "TMPDIR": environment.pop("folder")} | environment
    given["PYTHONPATH"] = os.pathsep.join(sys.path)  # the code that is tested, not one that is installed
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


def test_more_gpus_than_there_are_is_an_error_and_those_of_a_slurm_job_of_several_machines_are_left_alone(tmp_path):
    process = job(2, "7", folder=str(tmp_path))
    process.communicate()
    assert process.returncode == 1
    process = job(2, "7", folder=str(tmp_path), SLURM_JOB_ID="12")
    output, _ = process.communicate()
    assert (process.returncode, output) == (0, "")


def test_jobs_of_one_slurm_allocation_share_its_gpus_and_those_of_another_have_their_own(tmp_path):
    """Under cgroups each allocation calls its first GPU 0."""
    folder = str(tmp_path)
    jobs = [job(1, "0,1", folder=folder, SLURM_JOB_ID="12") for _ in range(2)]
    assert sorted(process.stdout.readline() for process in jobs) == ["GPU 0\n", "GPU 1\n"]
    jobs.append(job(1, "0", folder=folder, SLURM_JOB_ID="13"))
    assert jobs[2].stdout.readline() == "GPU 0\n"
    for process in jobs:
        process.kill()
        process.wait()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without GPUs; ``add`` puts one in."""
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "driver")
    monkeypatch.setattr(gpus, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(gpus, "_checked", lambda cards: cards)
    monkeypatch.setattr(gpus, "_torch_sees_any", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF"):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def add(number, model, has_device=True):
        files.write_text(tmp_path / f"driver/gpus/0000:0{number}:00.0/information", f"Model: \t {model}\nIRQ: 1\n")
        if has_device:
            files.write_text(tmp_path / f"dev/nvidia{number}", "")

    yield SimpleNamespace(folder=tmp_path, add=add, log=tmp_path / "logs" / "a" / "b.log")
    gpus._TAKEN.clear()


@pytest.mark.parametrize("named", ["", " ", "-1", ",0", "NoDevFiles"])
def test_no_gpu_is_taken_where_the_environment_says_that_there_is_none(machine, monkeypatch, named):
    """On a machine with a GPU: an empty list, or one that begins with -1, is none for CUDA too."""
    machine.add(0, "V100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    note = machine.folder / "benchmarks" / "a" / "b.gpus.json"
    files.write_json(note, {"gpus": 1, "model": "T4"})
    gpus.take_gpus(machine.log, 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == named
    assert not note.exists() and not gpus.usable()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus.usable() == 1
    gpus.take_gpus(machine.log, 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert files.read_json(note) == {"gpus": 1, "model": "V100"}


def test_gpus_are_counted_as_nvidia_smi_lists_them_or_by_their_devices(machine):
    assert gpus.models() == []
    machine.add(0, "V100", has_device=False)
    assert gpus.models() == []  # in a container without GPUs: /proc is the host's
    machine.add(1, "T4")
    assert gpus.models() == ["V100"]
    files.write_text(machine.folder / "dev" / "nvidiactl", "")
    files.write_text(machine.folder / "dev" / "nvidia2", "")
    files.write_text(machine.folder / "dev" / "nvidia3", "")
    assert gpus.models() == ["V100", "T4", "NVIDIA GPU"]
    listed = machine.folder / "bin" / "nvidia-smi"
    lines = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)", "  MIG 1g.5gb Device  0: (UUID: MIG-2)", "GPU 1: T4 (UUID: 3)"
    files.write_text(listed, "#!/bin/sh\necho '" + "\n".join(lines) + "'\n")
    listed.chmod(0o755)
    assert gpus.models() == ["NVIDIA H100 80GB HBM3", "T4"]
    files.write_text(listed, "#!/bin/sh\necho 'GPU 0: Failed to initialize NVML'\nexit 18\n")
    assert len(gpus.models()) == 3  # the devices are there, whatever is wrong with the driver


def test_what_only_torch_sees_has_one_job_at_a_time(machine, monkeypatch):
    monkeypatch.setattr(gpus, "_torch_sees_any", lambda: True)
    monkeypatch.setattr(gpus, "_checked", lambda cards: ["Orin"])
    gpus.take_gpus(machine.log, 1)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert not gpus._locked([gpus.ALL], 1)
    assert files.read_json(machine.folder / "benchmarks/a/b.gpus.json") == {"gpus": 1, "model": "Orin"}


def test_the_time_that_a_job_waits_for_a_gpu_is_noted(machine, monkeypatch, capsys):
    """Also while it waits: it may be killed then."""
    other, clock, noted = gpus._locked(["0"], 1), [0.0], []
    monkeypatch.setattr(gpus, "note_attempt", lambda waited: noted.append(waited))
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def sleep(seconds):
        clock[0] += seconds
        if clock[0] == 700:
            other["0"].close()

    monkeypatch.setattr("time.sleep", sleep)
    gpus._take(["0"], 1)
    assert noted == [60, 660, 700]
    assert capsys.readouterr().out.splitlines()[-1] == "GPU 0"


@pytest.mark.parametrize(
    ("capability", "built", "expected"),
    [
        ((7, 0), ["sm_70", "sm_80"], True),  # a V100
        ((7, 0), ["sm_75", "sm_80", "sm_120"], False),
        ((6, 1), ["sm_70"], False),
        ((8, 6), ["sm_80"], True),  # an RTX 3090 runs what was built for an A100
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80", "sm_90a"], True),
        ((10, 0), ["sm_90"], False),
        ((10, 0), ["sm_90", "compute_90"], True),
        ((9, 4), [], True),
    ],
)
def test_a_gpu_runs_what_was_built_for_its_generation(capability, built, expected):
    assert gpus.is_supported(capability, built) == expected


def test_a_gpu_that_torch_cannot_use_is_an_error_that_says_why(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(gpus, "DRIVER", tmp_path)
    module = "NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021"
    files.write_text(tmp_path / "version", f"NVRM version: {module}\nGCC version:  gcc version 9.3.0\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"use this machine's T4 with the driver 470\.57\.02: .*_DEVICES= before"):
        gpus._checked(["T4"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "GTX 1080")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_70", "sm_80"])
    with pytest.raises(SystemExit, match=r"the GTX 1080 of compute capability 6\.1 .* sm_61, .* for sm_70, sm_80"):
        gpus._checked(["GTX 1080"])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_61", "sm_80"])
    assert gpus._checked(["GTX 1080"]) == ["GTX 1080"]


ERRORS = {
    "raise ValueError('the file x is empty; fill it')": "error: the file x is empty; fill it\n",
    "raise RuntimeError(\n    'two lines of code'\n)": "error: two lines of code\n",
    "int('x')": "Traceback",
    "raise ValueError()": "Traceback",
    "json.loads('{')": "Traceback",
}


def test_what_is_wrong_with_a_users_files_is_a_sentence_wherever_it_is_raised(capsys):
    try:
        raise files.BadInput("names.csv is empty")
    except files.BadInput:
        logs.print_error(*sys.exc_info())
    assert capsys.readouterr().err == "error: names.csv is empty\n"


def test_what_augbench_raises_is_a_sentence_and_what_breaks_has_its_traceback(monkeypatch, capsys):
    file = str(Path(logs.__file__).with_name("made_up.py"))
    for source, expected in ERRORS.items():
        text = f"import json\n{source}\n"
        linecache.cache[file] = (len(text), None, text.splitlines(True), file)
        try:
            exec(compile(text, file, "exec"), {})
        except Exception:
            logs.print_error(*sys.exc_info())
        assert capsys.readouterr().err.startswith(expected)
