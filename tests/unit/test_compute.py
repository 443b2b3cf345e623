"""What jobs cost, against sums worked by hand and the paper's own factors."""

import re
from pathlib import Path

import pandas as pd
import pytest

from augbench import compute, files, jobs

METHODS = {
    "none": {"title": "None", "family": "baseline", "start": "none", "trained": []},
    "boomerang": {"title": "Boomerang", "family": "u", "start": "image", "trained": []},
    "clip": {"title": "CLIP", "family": "prompting", "start": "noise", "trained": []},
    "clip-x": {"title": "CLIP X", "family": "prompting", "start": "noise", "trained": []},
    "pseudoword_dm": {"title": "PW", "family": "fine-tuning", "start": "noise", "trained": ["pseudo_word", "unet"]},
    "mine": {"title": "Mine", "family": "fine-tuning", "start": "noise", "trained": ["unet"]},
    "retrieval": {"title": "Retrieval", "family": "retrieval", "start": "pool", "trained": []},
}
SECONDS = {  # wall-clock, CPU time, GPUs
    "finetune/pseudoword_dm-lr-1": (3600, 9000, 8),
    "finetune/pseudoword_dm-lr-0.1": (1800, 4500, 8),
    "finetune/clusters": (360, 360, 1),
    "screen/pseudoword_dm-0": (7200, 7200, 1),
    "screen/select-pseudoword_dm": (36, "NA", 0),
    "generate/pseudoword_dm-selected-0": (3600, 3600, 1),
    "generate/clip-base-0": (3600, 7200, 1),
    "generate/clip-base-1": (1800, 1800, 1),
    "generate/clip-x-base-0": (900, 900, 1),
    "retrieve/retrieval": (1800, 900, 0),
    "classify/none-x0-1-5": (720, 720, 2),
    "report/summary-clip": (4, "NA", 0),
}


def study(folder, gpus):
    for name, (wall, cpu, count) in SECONDS.items():
        header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
        line = f"{wall}.0\t0:00:01\t1\t1\t1\t1\t1\t1\t1\t{cpu}"
        files.write_text(folder / "benchmarks" / f"{name}.tsv", f"{header}\n{line}\n")
        if gpus and count:
            note = {"gpus": count, "model": "V100" if name.startswith("finetune") else "T4"}
            files.write_json(folder / "benchmarks" / f"{name}.gpus.json", note)
    return folder


def paper():
    return pd.read_csv("resources/paper_compute.csv")


def test_hours_per_stage_and_method(tmp_path):
    compute.write(tmp_path / "compute.csv", study(tmp_path, gpus=True), METHODS)
    rows = pd.read_csv(tmp_path / "compute.csv", keep_default_na=False).set_index(["stage", "method"])
    assert list(rows.columns) == ["jobs", "hours", "gpu_hours", "core_hours", "gpus"]
    assert list(rows.loc[("finetune", "pseudoword_dm")]) == [2, 1.5, 12, 3.75, "V100"]
    assert list(rows.loc[("finetune", "")]) == [1, 0.1, 0.1, 0.1, "V100"]
    assert list(rows.loc[("screen", "pseudoword_dm")]) == [2, 2.01, 2, 2.01, "T4"]
    assert list(rows.loc[("generate", "clip")]) == [2, 1.5, 1.5, 2.5, "T4"]
    assert list(rows.loc[("generate", "clip-x")]) == [1, 0.25, 0.25, 0.25, "T4"]
    assert list(rows.loc[("classify", "none")]) == [1, 0.2, 0.4, 0.2, "T4"]
    assert list(rows.loc[("retrieve", "retrieval")]) == [1, 0.5, 0, 0.25, ""]


def test_relative_to_retrieval_with_gpus(tmp_path):
    """Retrieval has no GPU: its half hour by the clock is what GPU-hours are divided by, as in the paper."""
    found = compute.gather(study(tmp_path, gpus=True), METHODS, paper())
    assert (found["unit"], found["gpus"], found["classifier"]) == ("GPU-hours", ["T4", "V100"], pytest.approx(0.4))
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == ["boomerang", "clip", "clip-x", "pseudoword_dm", "mine", "retrieval"]
    assert rows["pseudoword_dm"]["adapting"] == pytest.approx(12 + 2)
    assert rows["pseudoword_dm"]["times"] == pytest.approx(30)
    assert rows["clip"]["times"] == pytest.approx(3)
    assert rows["retrieval"]["times"] == 1


def test_core_hours_where_no_job_had_a_gpu(tmp_path):
    found = compute.gather(study(tmp_path, gpus=False), METHODS, paper())
    assert (found["unit"], found["gpus"]) == ("core-hours", [])
    rows = {row["method"]: row for row in found["rows"]}
    assert rows["clip"]["total"] == pytest.approx(2.5)
    assert rows["clip"]["times"] == pytest.approx(10)


def test_the_papers_factors_follow_from_its_hours(tmp_path):
    """30x for prompts and 56x for PSEUDOWORD+DM, as the last sentence of section 3.1 says."""
    rows = {row["method"]: row for row in compute.gather(study(tmp_path, gpus=True), METHODS, paper())["rows"]}
    assert round(rows["clip"]["paper_times"]) == 30
    assert round(rows["pseudoword_dm"]["paper_times"]) == 56
    assert (rows["pseudoword_dm"]["paper_adapting"], rows["pseudoword_dm"]["paper_making"]) == (720, 867)
    assert rows["boomerang"]["paper_times"] is None
    assert rows["mine"]["paper_times"] is None


def test_without_retrieval_or_benchmarks_there_is_nothing_to_compare(tmp_path):
    assert compute.gather(tmp_path / "none", METHODS, paper())["rows"] == []
    alone = compute.gather(study(tmp_path, gpus=True), {"clip": METHODS["clip"]}, paper())["rows"]
    assert [row["times"] for row in alone] == [None]


def test_jobs_note_their_gpus_beside_their_benchmarks(tmp_path, monkeypatch):
    log, note = tmp_path / "logs/finetune/a-lr-0.5.log", tmp_path / "benchmarks/finetune/a-lr-0.5.gpus.json"
    for i in range(2):
        card = tmp_path / "gpus" / f"0000:0{i}:00.0" / "information"
        files.write_text(card, "Model: \t\t Tesla V100-SXM2-32GB\nIRQ:   \t\t 1\n")
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # which gives the job its GPUs: none are taken here
    monkeypatch.setattr(jobs, "GPUS", tmp_path / "gpus")
    jobs.take_gpus(log, 2)
    assert files.read_json(note) == {"gpus": 2, "model": "Tesla V100-SXM2-32GB"}
    monkeypatch.setattr(jobs, "GPUS", tmp_path / "nothing")
    jobs.take_gpus(log, 2)
    assert not note.exists()


def test_rules_with_gpus_name_log_and_benchmark_alike():
    """Where they do not, the note of a job's GPUs would not lie beside its benchmark file."""
    found = 0
    for path in Path("workflow/rules").glob("*.smk"):
        for rule in re.split(r"^ *rule\b", path.read_text(), flags=re.M)[1:]:
            if "gpu=" in rule:
                log = re.search(r"logs/(.*)\.log", rule)[1]
                assert re.search(r"benchmarks/(.*)\.tsv", rule)[1] == log, log
                found += 1
    scripts = [path.read_text() for path in Path("workflow/scripts").glob("*.py")]
    assert found == 13
    assert sum("take_gpus(snakemake.log[0], snakemake.resources.gpu)" in text for text in scripts) == found
