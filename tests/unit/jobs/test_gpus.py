"""GPUs are shared out among the jobs of one machine."""

import linecache
import os
import subprocess
import sys
from pathlib import Path

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


def test_more_gpus_than_there_are_is_an_error_and_slurms_are_left_alone(tmp_path):
    process = job(2, "7", folder=str(tmp_path))
    process.communicate()
    assert process.returncode == 1
    process = job(2, "7", folder=str(tmp_path), SLURM_JOB_ID="12")
    output, _ = process.communicate()
    assert (process.returncode, output) == (0, "")


@pytest.mark.parametrize("named", ["", " ", "-1", ",0"])
def test_no_gpu_is_taken_where_the_environment_says_that_there_is_none(tmp_path, monkeypatch, named):
    """On a machine with a GPU: an empty list, or one that begins with -1, is none for CUDA too."""
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:01:00.0" / "information").write_text("Model: V100\n")
    monkeypatch.setattr(gpus, "GPUS", tmp_path / "gpus")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    log = tmp_path / "logs" / "a" / "b.log"
    gpus.take_gpus(str(log), 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == named
    assert not (tmp_path / "benchmarks" / "a" / "b.gpus.json").exists()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    gpus.take_gpus(str(log), 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert (tmp_path / "benchmarks" / "a" / "b.gpus.json").exists()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    gpus._TAKEN.clear()


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
