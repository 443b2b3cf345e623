"""A mistake in the configuration or the data gets one clear sentence and a non-zero exit, before any work."""

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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"clasifier": {}}, "studies.mine.clasifier: there is no such key, did you mean 'classifier'?"),
        (
            {"dataset": {"trian": 0.1}},
            "studies.mine.dataset.trian: there is no such key, did you mean 'train'?",
        ),
        ({"runs": "five"}, "studies.mine.runs: Input should be a valid integer"),
        ({"dataset": {"train": 1.5}}, "studies.mine.dataset.train: Input should be less than or equal to 1"),
        (
            {"methods": ["none", "clip_prompt"]},
            "there is no method 'clip_prompt', did you mean 'clip_prompts'?",
        ),
        (
            {"classifier": {"model": "resnet5"}},
            "studies.mine.classifier.model: unknown classifier 'resnet5'; did you mean 'resnet",
        ),
        (
            {"dataset": {"train": 0.8, "validation": 0.2}},
            "studies.mine.dataset: its shares leave no images for more_real to add; take a smaller share",
        ),
        (
            {"dataset": {"train": 0.9, "validation": 0.2}},
            "studies.mine.dataset: train + validation must not exceed 1; they are 1.1",
        ),
        ({"methods": ["retrieval"]}, "its methods need the section `backbone`, which is missing"),
        ({"target": {"reader": "folder", "path": "nowhere"}}, "there is no folder nowhere"),
        ({"target": {"reader": "folder"}}, "needs a path, e.g. `path: data/birds`"),
    ],
)
def test_mistakes_in_the_configuration(fresh, changes, sentence):
    code, output = run(fresh, study(**changes))
    assert code != 0
    assert sentence in output
    assert "Traceback" not in output


def test_empty_class(fresh):
    path = folder(fresh, "empty", {"cat": 2, "dog": 0})
    code, output = run(fresh, study(target={"reader": "folder", "path": path}))
    assert code != 0
    assert "the class dog of empty holds no image" in output


def test_two_classes_of_one_name(fresh):
    path = folder(fresh, "twins", {"tiger_cat": 2, "tiger cat": 2})
    code, output = run(fresh, study(target={"reader": "folder", "path": path}))
    assert code != 0
    assert "the classes tiger cat and tiger_cat have the same name 'tiger cat'" in output


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


def test_results_that_cannot_be_written(clone):
    other = clone()
    (other.folder / "results").write_text("a file where the folder should be")
    code, output = run(other, study())
    assert code != 0
    assert "the folder results cannot be written" in output


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
    assert not (fresh.folder / "results" / "mine").exists()


def test_what_new_study_writes_can_be_planned(fresh):
    path = fresh.folder / "birds"
    for key in ("robin", "blue tit"):
        (path / key).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (300, 200), (i, 0, 0)).save(path / key / f"{i}.png")
    command = [sys.executable, "-m", "augbench.new_study", "birds", "birds"]
    subprocess.run(command, cwd=fresh.folder, env=fresh.environment, check=True)
    code, output = fresh.snakemake("-n", "--configfile", "config/birds.yaml")
    assert code == 0, output
    assert re.search(r"^generate +2$", output, re.MULTILINE)
