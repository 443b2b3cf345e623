"""Readers by their names: the registry is the only place that knows them."""

from pathlib import Path

import pytest
from PIL import Image

from augbench.digits import data
from augbench.study.readers import READERS, reader_of
from augbench.study.sections.target import Target


def folders(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(root / name / "0.png")
    return root


@pytest.mark.parametrize(
    ("names", "reader"),
    [
        (["a", "b"], "folder"),
        (["train/a", "val/a"], "folder"),
        (["train/n01440764", "val/n01440764"], "imagenet"),
        (["train/a", "val"], "imagenet"),
        (["train/n01440764", "val", "test/n01440764"], "folder"),
        (["256_ObjectCategories/001.ak47"], "caltech256"),
    ],
)
def test_a_folder_shows_its_reader(tmp_path, names, reader):
    assert reader_of(folders(tmp_path, *names)).name == reader


def test_a_file_is_a_list(tmp_path):
    (tmp_path / "list.csv").write_text("path,class\n")
    assert reader_of(tmp_path / "list.csv").name == "list"


def test_a_target_holds_its_reader_and_dumps_its_name():
    target = Target(reader="list", path="x.csv")
    assert target.reader is READERS["list"]
    assert Target(**target.model_dump()) == target
    assert target.model_dump()["reader"] == "list"
    with pytest.raises(ValueError, match=r"there is no reader 'imagnet', did you mean 'imagenet'\? \(known: digits, f"):
        Target(reader="imagnet", path="x")
    with pytest.raises(ValueError, match=r"there is no reader 3 \(known: "):
        Target(reader=3, path="x")


def test_the_built_in_readers_classes_are_those_that_are_made():
    assert READERS["digits"].known_classes == tuple(data.DIGITS)


def test_readers_bring_no_torch():
    source = Path(__file__).parents[3] / "src/augbench/study/readers"
    assert not any("torch" in file.read_text() for file in source.glob("*.py"))
