"""Digests of what users fill: they change with the files that are read, and with nothing else."""

import os
from pathlib import Path

import pytest

from augbench.jobs import user_data
from augbench.study.config import Study


@pytest.fixture
def filled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "data/a/1.png",
        "data/a/2.png",
        "data/b/1.png",
        "other/x/1.png",
        "mine/a/1.png",
        "sketches/a/1.png",
        "sd/unet/x.safetensors",
        "checker/x",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    for name in (
        "head.pth",
        "detector.pt",
        "index/image.index",
        "index/metadata/0.parquet",
        "clip/config.json",
        "checker/x",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)


def digests(**sections) -> dict:
    """Place -> its digest, read anew as each plan does."""
    study = {"methods": ["none", "mine"], "target": {"reader": "folder", "path": "data"}}
    study |= {"audit": {"references": {"web": "other"}, "detector": "detector.pt"}, "backbone": {"model": "sd"}}
    study |= {"clip": {"model": "hf_clip:clip"}, "pool": {"source": "index", "path": "index"}}
    study |= {"evaluate": {"sketch": {"path": "sketches"}}}
    study |= {"retrieval": {"aesthetic_model": "head.pth"}}
    study |= {"added": {"mine": "mine", "unused": "nowhere"}, "safety": {"model": "checker"}}
    data = user_data.UserData(Study(**study | sections))
    places = ("target", "references", "evaluation", "safety", "pool", "aesthetic_model", "backbone", "clip", "detector")
    return {place: getattr(data, place) for place in places} | {"added": data.added("mine")}


def changed(before: dict, **sections) -> set[str]:
    after = digests(**sections)
    return {place for place in after if after[place] != before[place]}


def later(name, seconds=10):
    """Set a file's time, as if it was written then."""
    time = Path(name).stat().st_mtime + seconds
    os.utime(name, (time, time))


EDITS = {
    "an image of the target is added": ("target", lambda: Path("data/b/2.png").write_text("")),
    "an image of the target is removed": ("target", lambda: Path("data/a/2.png").unlink()),
    "an image of the target is written anew": ("target", lambda: later("data/a/1.png")),
    "an image of the target is replaced by an older one": ("target", lambda: later("data/a/1.png", -1000)),
    "an image of the target is larger": ("target", lambda: Path("data/a/1.png").write_text("more")),
    "an image of the target is renamed": ("target", lambda: Path("data/a/1.png").rename("data/a/3.png")),
    "a class is added": ("target", lambda: Path("data/a").rename("data/c")),
    "a reference image is added": ("references", lambda: Path("other/x/2.png").write_text("")),
    "an image of a further test set is added": ("evaluation", lambda: Path("sketches/a/2.png").write_text("")),
    "an image made elsewhere is added": ("added", lambda: Path("mine/b").mkdir() or Path("mine/b/1.png").touch()),
    "an image made elsewhere is another": ("added", lambda: later("mine/a/1.png")),
    "the safety checker is another": ("safety", lambda: later("checker/x")),
    "the index is another": ("pool", lambda: later("index/image.index", -5)),
    "metadata are added": ("pool", lambda: Path("index/metadata/1.parquet").write_text("")),
    "the aesthetic model is another": ("aesthetic_model", lambda: later("head.pth", -5)),
    "the backbone is another": ("backbone", lambda: later("sd/unet/x.safetensors")),
    "CLIP is another": ("clip", lambda: later("clip/config.json")),
    "the detector is another": ("detector", lambda: later("detector.pt")),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_its_place_and_no_other(filled, edit):
    place, change = EDITS[edit]
    before = digests()
    assert changed(before) == set()
    change()
    assert changed(before) == {place}


def test_what_no_reader_takes_changes_nothing(filled):
    before = digests()
    Path("data/a/.hidden.png").write_text("")
    Path("data/a/notes.md").write_text("")
    Path("index/.nfs0001").write_text("")
    for folder in ("data", "data/a", "other", "index"):
        later(folder)
    assert changed(before) == set()


def test_lists_tables_and_ground_truths_belong_to_the_target(filled):
    Path("list.csv").write_text("path,class\ndata/a/1.png,a\ndata/b/1.png,b\n")
    Path("names.csv").write_text("class,lemmas\na,ape\n")
    target = {"target": {"reader": "list", "path": "list.csv", "classes": "names.csv"}}
    before = digests(**target)
    for name in ("list.csv", "names.csv", "data/b/1.png"):
        later(name)
        assert changed(before, **target) == {"target"}
        before = digests(**target)
    later("data/a/2.png")  # which the list does not name
    assert changed(before, **target) == set()


def test_a_study_without_data_of_its_own_has_none(filled):
    study = Study(methods=["none"], target={"reader": "digits"}, clip={"model": "ViT-B/32"}, pool={"source": "digits"})
    data = user_data.UserData(study)
    assert [data.target, data.references, data.pool, data.backbone, data.clip, data.detector] == [
        "",
        {},
        "",
        "",
        "",
        "",
    ]
    assert user_data.UserData(study.model_copy(update={"backbone": None})).backbone == ""


def test_the_clip_detector_is_the_studys_clip(filled):
    audit = {"audit": {"detector": "clip"}}
    before = digests(**audit)
    assert before["detector"] == before["clip"] != ""
    later("clip/config.json")
    assert changed(before, **audit) == {"clip", "detector"}


def test_captions_beside_images_count_and_other_texts_do_not(filled):
    images = ["data/a/1.png", "data/a/2.png"]
    before = user_data.captions(images)
    Path("data/a/README.txt").write_text("")
    assert user_data.captions(images) == before
    Path("data/a/2.txt").write_text("a two")
    assert user_data.captions(images) != before


def test_a_link_that_leads_nowhere_counts_by_its_name(filled):
    before = digests()
    Path("data/a/3.png").symlink_to("nowhere")
    assert changed(before) == {"target"}


def test_a_target_that_several_studies_have_is_listed_once(filled, monkeypatch):
    listed = []
    monkeypatch.setattr(user_data, "digest_of_target", lambda section: listed.append(section) or "digest")
    study = Study(methods=["none"], target={"reader": "folder", "path": "data"})
    other = Study(methods=["none"], target={"reader": "folder", "path": "other"})
    data = user_data.of_studies({"a": study, "b": study.model_copy(update={"seed": 2}), "c": other})
    assert [each.target for each in data.values()] == ["digest"] * 3
    assert [section.path for section in listed] == ["data", "other"]
