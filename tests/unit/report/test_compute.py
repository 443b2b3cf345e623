"""What jobs cost, against sums worked by hand and the paper's own factors."""

import os
import re
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest

from augbench.core import files, package_data
from augbench.core.benchmarks import Job, measure
from augbench.jobs import gpus
from augbench.report import compute
from augbench.study.methods import Method
from augbench.study.sections.retrieval import Retrieval


def method(title, family, start, trained=()):
    return Method(title=title, family=family, start=start, trained=list(trained), conditioning=TEXTS.get(start))


TEXTS = {"noise": "simple_prompt", "pool": "simple_prompt"}
METHODS = {
    "boomerang": method("Boomerang", "u", "image"),
    "clip": method("CLIP", "prompting", "noise"),
    "clip-x": method("CLIP X", "prompting", "noise"),
    "pseudoword_dm": Method(
        title="PW",
        family="fine-tuning",
        start="noise",
        trained=["pseudo_word", "unet"],
        conditioning="textual_inversion",
    ),
    "mine": method("Mine", "fine-tuning", "noise", ["unet"]),
    "retrieval": method("Retrieval", "retrieval", "pool"),
}
JOBS = {  # method, part, wall-clock, CPU time, GPUs
    "finetune/pseudoword_dm-lr-1": ("pseudoword_dm", "lr-1", 3600, 9000, 8),
    "finetune/pseudoword_dm-lr-0.1": ("pseudoword_dm", "lr-0.1", 1800, 4500, 8),
    "finetune/clusters": ("", "", 360, 360, 1),
    "screen/pseudoword_dm-0": ("pseudoword_dm", "", 7200, 7200, 1),
    "screen/select-pseudoword_dm": ("pseudoword_dm", "", 36, None, 0),
    "generate/pseudoword_dm-selected-0": ("pseudoword_dm", "selected", 3600, 3600, 1),
    "generate/pseudoword_dm-screen-0": ("pseudoword_dm", "screen", 10800, 10800, 1),
    "generate/clip-base-0": ("clip", "base", 3600, 7200, 1),
    "generate/clip-base-1": ("clip", "base", 1800, 1800, 1),
    "generate/clip-x-base-0": ("clip-x", "base", 900, 900, 1),
    "retrieve/retrieval": ("retrieval", "", 1800, 900, 0),
    "retrieve/retrieval-further": ("retrieval", "further", 9000, 900, 0),
    "generate/clip-further-0": ("clip", "further", 36000, 36000, 1),
    "classify/none-x0-1-5": ("none", "x0", 720, 720, 2),
    "report/summary-clip": ("clip", "", 4, None, 0),
}


IMAGES = {
    "clip": compute.Images(300, 300),
    "pseudoword_dm": compute.Images(300, 1200),
    "retrieval": compute.Images(5, 5),
}


def measured(folder, gpus):
    """The measurements of the jobs, as they note them."""
    jobs = []
    for name, (key, part, wall, cpu, count) in JOBS.items():
        # What Snakemake samples is anything: the job's own note counts.
        path = folder / "benchmarks" / f"{name}.tsv"
        files.write_text(path, f"s\tcpu_time\n{wall + 3}.0\t{7 * wall}\n")
        attempt = {"begun": 0, "seconds": wall, "cpu_seconds": cpu}
        files.write_json(path.with_suffix(".attempts.json"), [attempt])
        if gpus and count:
            note = {"gpus": count, "model": "V100" if name.startswith("finetune") else "T4"}
            files.write_json(path.with_suffix(".gpus.json"), note)
        jobs.append(Job(str(path), name.split("/")[0], key, part))
    return measure(jobs)


def relative(measurements, methods=METHODS, unions=None):
    sums = compute.table(compute.jobs_of(measurements))
    paper = pd.read_csv(package_data.bundled("paper_compute.csv"))
    rows = compute.relative(sums, methods, paper, IMAGES, {"pseudoword_dm": "lr-1"}, unions)
    return compute.unit(sums), {row["method"]: row for row in rows}


def test_hours_per_stage_and_method(tmp_path):
    table = compute.table(compute.jobs_of(measured(tmp_path, gpus=True)))
    rows = table.set_index(["stage", "method", "part"])
    assert list(rows.columns) == ["jobs", "hours", "gpu_hours", "core_hours", "gpus"]
    assert list(rows.loc[("finetune", "pseudoword_dm", "lr-1")]) == [1, 1, 8, 2.5, "V100"]
    assert list(rows.loc[("finetune", "pseudoword_dm", "lr-0.1")]) == [1, 0.5, 4, 1.25, "V100"]
    assert list(rows.loc[("finetune", "", "")]) == [1, 0.1, 0.1, 0.1, "V100"]
    assert list(rows.loc[("screen", "pseudoword_dm", "")]) == [2, 2.01, 2, 2.01, "T4"]
    assert list(rows.loc[("generate", "clip", "base")]) == [2, 1.5, 1.5, 2.5, "T4"]
    assert list(rows.loc[("generate", "clip-x", "base")]) == [1, 0.25, 0.25, 0.25, "T4"]
    assert list(rows.loc[("classify", "none", "x0")]) == [1, 0.2, 0.4, 0.2, "T4"]
    assert list(rows.loc[("retrieve", "retrieval", "")]) == [1, 0.5, 0, 0.25, ""]


def test_relative_to_retrieval_with_gpus(tmp_path):
    """Retrieval has no GPU: its half hour by the clock is what GPU-hours are divided by, as in the paper."""
    unit, rows = relative(measured(tmp_path, gpus=True))
    assert unit == "GPU-hours"
    assert list(rows) == ["boomerang", "clip", "clip-x", "pseudoword_dm", "mine", "retrieval"]
    assert rows["clip"]["times"] == pytest.approx(3)
    assert rows["retrieval"]["times"] == 1


def test_a_union_takes_its_shares_of_images_and_all_that_adapts_its_methods(tmp_path):
    """8 hours of fine-tuning; 1/4 of its hour and 3/4 of 1.5 hours of generating."""
    union = Method(title="U", family="union", start="methods", of={"pseudoword_dm": 0.25, "clip": 0.75})
    shares = {"u": union.shares, "v": {"retrieval": Fraction(1, 2), "mine": Fraction(1, 2)}}
    _, rows = relative(measured(tmp_path, gpus=True), {"u": union, "v": union} | METHODS, shares)
    assert list(rows)[:3] == ["u", "v", "boomerang"]
    row = rows["u"]
    assert (row["adapting"], row["making"], row["total"]) == pytest.approx((8, 0.25 + 1.125, 9.375))
    assert row["times"] == pytest.approx(9.375 / 0.5)
    assert row["searching"] == pytest.approx(rows["pseudoword_dm"]["searching"] + rows["clip"]["searching"])
    assert (row["paper_adapting"], row["paper_making"]) == (720, 867)  # to generate takes as long for both
    assert rows["v"]["paper_total"] is None


def test_same_things_stand_beside_the_papers(tmp_path):
    """One of two rates, 8 hours; 300 of 1,200 images, a quarter of 4 hours. The rest of 18 hours is the search."""
    row = relative(measured(tmp_path, gpus=True))[1]["pseudoword_dm"]
    assert (row["adapting"], row["making"], row["total"]) == pytest.approx((8, 1, 9))
    assert row["searching"] == pytest.approx(4 + 2.01 + 0.01 - 0.02 + 3, abs=0.02)  # a rate, screening, other images
    assert row["times"] == pytest.approx(18)


def test_core_hours_where_no_job_had_a_gpu(tmp_path):
    unit, rows = relative(measured(tmp_path, gpus=False))
    assert unit == "core-hours"
    assert rows["clip"]["total"] == pytest.approx(2.5)
    assert rows["clip"]["times"] == pytest.approx(10)


def test_the_papers_factors_follow_from_its_hours(tmp_path):
    """30x for prompts and 56x for PSEUDOWORD+DM, as the last sentence of section 3.1 says."""
    _, rows = relative(measured(tmp_path, gpus=True))
    assert round(rows["clip"]["paper_times"]) == 30
    assert round(rows["pseudoword_dm"]["paper_times"]) == 56
    assert (rows["pseudoword_dm"]["paper_adapting"], rows["pseudoword_dm"]["paper_making"]) == (720, 867)
    assert rows["boomerang"]["paper_times"] is None
    assert rows["mine"]["paper_times"] is None


def test_without_retrieval_or_benchmarks_there_is_nothing_to_compare(tmp_path):
    assert relative([]) == ("core-hours", {})
    _, alone = relative(measured(tmp_path, gpus=True), {"clip": METHODS["clip"]})
    assert alone["clip"]["times"] is None


JOB = """
import os, subprocess, sys, time
from augbench.jobs.logs import log_to
log_to(sys.argv[1])
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
burn(0.4)
child = "import time; end = time.process_time() + 0.5\\nwhile time.process_time() < end: pass"
subprocess.run([sys.executable, "-c", child], check=True)
print("half done", flush=True)
if sys.argv[2] == "killed": os.kill(os.getpid(), 9)
sys.exit({"done": 0, "ended": 143}[sys.argv[2]])
"""


@pytest.mark.middle
def test_a_job_measures_itself_its_children_and_its_attempts(tmp_path):
    """0.4 s of its own and 0.5 s of a child, which is over before anybody could sample it."""
    log, benchmark = tmp_path / "s/logs/stage/job.log", tmp_path / "s/benchmarks/stage/job.tsv"
    log.parent.mkdir(parents=True)

    def attempt(end):
        process = subprocess.run([sys.executable, "-c", JOB, str(log), end])
        if process.returncode == 0:
            files.write_text(benchmark, "s\tcpu_time\n1000\t0.01\n")
        return files.read_json(benchmark.with_suffix(".attempts.json"))

    (first,) = attempt("ended")
    assert 0.9 < first["cpu_seconds"] < 20  # imports are dear on a busy machine
    killed = attempt("killed")[1]
    assert killed["seconds"] is None
    ended, killed, done = attempt("done")
    assert ended == first
    assert 0.3 < killed["seconds"] < 300 and killed["cpu_seconds"] is None  # until its log's last line
    (measurement,) = measure([Job(str(benchmark), "stage")])
    assert (measurement.seconds, measurement.cpu_seconds) == pytest.approx(
        (ended["seconds"] + killed["seconds"] + done["seconds"],
         ended["cpu_seconds"] + killed["seconds"] + done["cpu_seconds"])
    )  # fmt: skip
    os.utime(benchmark, (time.time() + 1, time.time() + 1))
    (again,) = attempt("done")  # a job that was done begins anew
    assert again["begun"] > done["begun"]


def test_retrieval_stays_off_the_gpu(monkeypatch):
    """Unless the configuration says so it asks for none, so it must not use one that another job holds."""
    assert not Retrieval().gpu
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    gpus.take_gpus("results/a/logs/b/c.log", 0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    script = Path("workflow/scripts/retrieve.py").read_text()
    taken = script.index("take_gpus(snakemake.log[0], snakemake.resources.gpu)")
    assert taken < script.index("from augbench.retrieval")


def test_rules_name_log_and_benchmark_alike():
    """Where they do not, what a job notes of its time and GPUs would not lie beside its benchmark file."""
    found = 0
    for path in Path("workflow/rules").glob("*.smk"):
        for rule in re.split(r"^ *(?:use )?rule\b", path.read_text(), flags=re.M)[1:]:
            if benchmark := re.search(r"benchmarks/(.*)\.tsv", rule):
                assert re.search(r"logs/(.*)\.log", rule)[1] == benchmark[1]
            found += "gpu=" in rule and "script:" in rule  # not of a rule that takes another's script
    scripts = [path.read_text() for path in Path("workflow/scripts").glob("*.py")]
    assert found == 19
    assert sum("take_gpus(snakemake.log[0], snakemake.resources.gpu)" in text for text in scripts) == found
