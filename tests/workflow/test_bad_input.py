"""A mistake in the configuration or the data gets one clear sentence and a non-zero exit, before any work.

What the sentences are is seen in `unit/jobs/test_checks.py`; here, that Snakemake tells them, and nothing else.
"""

import re
import shutil
import subprocess
import sys

import pytest
import yaml
from PIL import Image


@pytest.fixture(scope="module")
def fresh(clone):
    return clone()


def run(clone, config):
    path = clone.folder / "my.yaml"
    path.write_text(yaml.safe_dump(config))
    return clone.snakemake("-n", "results/report.html", "--configfile", "my.yaml")


def study(**changes):
    base = {
        "methods": ["none", "more_real"],
        "target": {"reader": "digits"},
        "classifier": {"model": "small_cnn", "image_size": 32},
    }
    return {"studies": {"mine": base | changes}}


def folder(clone, name, classes):
    root = clone.folder / name
    for key, count in classes.items():
        (root / "train" / key).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (16, 16), (i, 0, 0)).save(root / "train" / key / f"{i}.png")
    return name


def test_mistakes_are_told_each_in_a_sentence_and_nothing_is_done(fresh):
    code, output = run(fresh, study(clasifier={}, runs=0))
    assert code != 0
    assert "studies.mine.clasifier: there is no such key, did you mean 'classifier'?" in output
    assert "studies.mine.runs: Input should be greater than or equal to 1" in output
    assert "Traceback" not in output
    assert not (fresh.folder / "results" / "mine").exists()


@pytest.mark.slow
def test_unreadable_image_is_named_and_skipped_when_asked(fresh):
    path = folder(fresh, "broken", {"cat": 9, "dog": 9})
    (fresh.folder / path / "train" / "cat" / "bad.jpg").write_bytes(b"<html>not an image</html>")
    given = {"reader": "folder", "path": path}
    config = study(target=given, dataset={"train": 0.3, "validation": 0.3, "test": 0.3})
    for policy, expected in (("stop", 1), ("skip", 0)):
        config["studies"]["mine"]["target"] = given | {"unreadable": policy}
        (fresh.folder / "my.yaml").write_text(yaml.safe_dump(config))
        code, output = fresh.snakemake("results/mine/target/images.parquet", "--configfile", "my.yaml", "--cores", "1")
        assert (code != 0) == bool(expected), output
        log = (fresh.folder / "results/mine/logs/dataset/split.log").read_text()
        assert "cannot read broken/train/cat/bad.jpg" in log


@pytest.mark.slow
def test_no_disk_space(fresh):
    """A run is refused; a plan, which may be for another machine, is made and says so."""
    changes = {
        "methods": ["none", "simple_prompt"],
        "backbone": {"model": "somewhere"},
        "generate": {"images_per_class": 10**9, "image_size": 512},
    }
    code, output = run(fresh, study(**changes))
    assert code == 0
    assert "are free" in output
    shutil.rmtree(fresh.folder / "results" / "mine", ignore_errors=True)  # of the tests above
    code, output = fresh.snakemake("results/report.html", "--configfile", "my.yaml", "--cores", "1")
    assert code != 0
    assert "are free" in output
    left = {path.name for path in (fresh.folder / "results" / "mine").iterdir()}
    assert left == {".runs"}  # empty files that tell a plan which runs one job makes


@pytest.mark.slow
def test_what_new_study_writes_can_be_planned(fresh):
    path = fresh.folder / "birds"
    for key in ("robin", "blue tit"):
        (path / key).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (300, 200), (i, 0, 0)).save(path / key / f"{i}.png")
    command = [sys.executable, "-m", "augbench.jobs.new_study", "birds", "birds"]
    subprocess.run(command, cwd=fresh.folder, env=fresh.environment, check=True)
    code, output = fresh.snakemake("-n", "--configfile", "config/birds.yaml")
    assert code == 0, output
    assert re.search(r"^generate +2$", output, re.MULTILINE)
