"""What is wrong with a study is one clear sentence, before any work; `workflow/test_bad_input.py` sees it told."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from augbench.jobs import checks
from augbench.jobs.job_costs import JobCosts
from augbench.jobs.study_files import StudyFiles
from augbench.study import config


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory: the package brings what it needs."""
    monkeypatch.chdir(tmp_path)


ROWS = yaml.safe_load(Path("config/methods.yaml").read_text())


def check(**changes) -> list[str]:
    """The check of a study with these changes, and what it says of the disk."""
    study = {
        "methods": ["none", "more_real"],
        "target": {"reader": "digits"},
        "classifier": {"model": "small_cnn", "image_size": 32},
    }
    parsed = config.parse(ROWS | {"studies": {"mine": study | changes}})
    checks.check_world(parsed)
    return checks.crowded({"mine": JobCosts(StudyFiles(parsed, "mine"))})


def sentence(**changes) -> str:
    """What the check says; fails if it finds nothing."""
    with pytest.raises((config.ConfigError, ValueError)) as error:
        check(**changes)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
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
            {"classifiers": {"tuned": {"model": "timm/resnett50", "weights": "pretrained"}}},
            "studies.mine.classifiers.tuned.model: unknown model 'timm/resnett50'; did you mean 'timm/resnet50'",
        ),
        (
            {"classifiers": {"probe": {"model": "local-dir:nowhere", "weights": "pretrained"}}},
            "studies.mine.classifiers.probe.model: there is no config.json in nowhere; write it with",
        ),
        (
            {"dataset": {"train": 0.8, "validation": 0.2}},
            "studies.mine.dataset: its shares leave no images for more_real to add; take a smaller share",
        ),
        (
            {"dataset": {"train": 0.9, "validation": 0.2}},
            "studies.mine.dataset: train + validation must not exceed 1; they are 1.1",
        ),
        ({"methods": ["boomerang"]}, "its methods need the section `backbone`, which is missing"),
        ({"target": {"reader": "folder", "path": "nowhere"}}, "there is no folder nowhere"),
        ({"target": {"reader": "folder"}}, "needs a path, e.g. `path: data/birds`"),
    ],
)
def test_mistakes_in_the_configuration(changes, expected):
    assert expected in sentence(**changes)


def folder(name, classes):
    for key, count in classes.items():
        place = Path(name, "train", key)
        place.mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (16, 16), (i, 0, 0)).save(place / f"{i}.png")
    return {"reader": "folder", "path": name}


def test_empty_class():
    target = folder("empty", {"cat": 2, "dog": 0})
    assert "the class dog of empty holds no image" in sentence(target=target)


def test_more_shots_than_a_class_has_images():
    target = folder("scarce", {"cat": 40, "dog": 12})
    said = sentence(target=target, methods=["none"], dataset={"shots": 16})
    assert "studies.mine.dataset.shots: the class dog has 12 images, of which 6 are left to train on" in said
    assert "write `shots: 6` or fewer" in said
    assert check(target=target, methods=["none"], dataset={"shots": 6}) == []


def test_further_test_sets_hold_classes_of_the_target():
    study = {"methods": ["none"], "target": folder("animals", {"cat": 20, "dog": 20})}
    for name, classes in (("same", ["cat"]), ("other", ["cat", "dgo"]), ("numbers", ["0", "2"])):
        for key in classes:
            Path(name, key).mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(f"{name}/{key}/0.png")
    Path("none/cat").mkdir(parents=True)

    def said(**section):
        return sentence(**study, evaluate={"sketch": section})

    assert "studies.mine.evaluate.sketch: there is no folder nowhere" in said(path="nowhere")
    unknown = "evaluate.sketch: other has the class 'dgo', which the target does not have, did you mean 'dog'?"
    assert unknown in said(path="other")
    assert "with `classes: position` its classes are 0 to 1" in said(path="numbers", classes="position")
    assert "evaluate.sketch: none holds no image" in said(path="none")
    assert "there is no naming 'wnids', did you mean 'wnid'?" in said(path="same", classes="wnids")
    assert check(**study, evaluate={"sketch": {"path": "same"}}) == []


def test_classes_are_topped_up_where_some_lack_images():
    even = {"target": folder("even", {"cat": 20, "dog": 20}), "methods": ["none"]}
    said = sentence(**even, dataset={"fill_to": "largest", "train": 0.5})
    assert "studies.mine.dataset: each class has 10 training images or more, so that `fill_to: largest` ad" in said
    assert check(**even, dataset={"fill_to": 11, "train": 0.5}) == []
    said = sentence(**even, dataset={"fill_to": 11, "train": 0.5}, retrieval={"images_per_class": 130})
    assert "retrieval.images_per_class: `dataset.fill_to` says how many images a class lacks" in said
    assert "fill_to" in sentence(**even, dataset={"fill_to": "most"})


def test_two_classes_of_one_name():
    target = folder("twins", {"tiger_cat": 2, "tiger cat": 2})
    assert "the classes tiger cat and tiger_cat have the same name 'tiger cat'" in sentence(target=target)


def test_results_that_cannot_be_written():
    Path("results").write_text("a file where the folder should be")
    assert "the folder results cannot be written" in sentence()


def test_no_disk_space():
    """A plan may be for another machine, so this is told and not raised."""
    size = {"images_per_class": 10**9, "image_size": 512}
    (found,) = check(methods=["simple_prompt"], backbone={"model": "somewhere"}, generate=size)
    assert found.startswith("studies.mine: writes about ") and found.endswith(" GB are free")
    assert check() == []


def test_what_a_study_wrote_already_needs_no_room(monkeypatch):
    monkeypatch.setattr(checks, "disk_needed", lambda study: 5000)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=3000))
    assert check()
    Path("results/mine").mkdir(parents=True)
    Path("results/mine/shard.tar").write_bytes(bytes(2500))
    assert check() == []


def test_a_plan_says_how_published_embeddings_are_searched():
    Path("pool").mkdir()
    np.save("pool/a.npy", np.ones((1200, 4), np.float16))
    pd.DataFrame({"url": ["http://x"] * 1200}).to_parquet("pool/a.parquet")
    study = {"methods": ["none"], "target": {"reader": "digits"}, "pool": {"source": "embeddings", "path": "pool"}}
    assert checks.remarks(config.parse(ROWS | {"studies": {"mine": study}})) == [
        "studies.mine: all of the 1,200 embeddings in pool are compared with each class's query; no index is built"
    ]


def test_what_a_pool_leaves_out_is_said_although_it_holds_images():
    Path("pool").mkdir()
    Image.new("RGB", (16, 16)).save("pool/a.png")
    for name in ("a.txt", "a.pdf", "b.pdf"):
        Path("pool", name).touch()
    study = {"methods": ["none"], "target": {"reader": "digits"}, "pool": {"source": "folder", "path": "pool"}}
    assert checks.remarks(config.parse(ROWS | {"studies": {"mine": study}})) == [
        "studies.mine: ignored in pool: 2 .pdf"
    ]
    Path("pool/a.pdf").unlink()
    Path("pool/b.pdf").unlink()
    assert checks.remarks(config.parse(ROWS | {"studies": {"mine": study}})) == []
