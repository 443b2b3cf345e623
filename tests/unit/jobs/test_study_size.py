"""How many images a study deals with: before anything is read, and as its data set says."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from augbench import images
from augbench.core import files as core_files
from augbench.dataset import splits
from augbench.digits import data
from augbench.jobs.study_files import StudyFiles
from augbench.jobs.study_size import study_size
from augbench.study import config

ROWS = yaml.safe_load(Path("config/methods.yaml").read_text())


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A study of a folder with two classes and a test split of its own."""
    monkeypatch.chdir(tmp_path)
    for split, counts in {"train": {"a": 40, "b": 11}, "test": {"a": 3, "b": 2}}.items():
        for key, count in counts.items():
            (tmp_path / "data" / split / key).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (2, 2), (i, 0, 0)).save(tmp_path / "data" / split / key / f"{i}.png")
    study = {"methods": ["none"], "target": {"reader": "folder", "path": "data"}}
    study |= {"dataset": {"train": 0.2, "validation": 0.1}}
    return StudyFiles(config.parse(ROWS | {"studies": {"s": study}}), "s")


def test_names_of_files_tell_what_the_split_will_be(files):
    expected = study_size(files)
    study = files.study
    table = splits.split(study.target, study.dataset, seed=1)
    assert expected.train == tuple(table[table["split"] == "train"].groupby("class").size())
    assert expected.images == {split: int((table["split"] == split).sum()) for split in splits.SPLITS}
    assert expected.target == 56
    images.write(files.target("images.parquet"), table, extra=["split"])
    assert study_size(files) == expected


def test_the_data_set_has_the_last_word(files):
    study = files.study
    table = splits.split(study.target, study.dataset, seed=1)
    kept = table[table["class"] == "b"]
    for split in splits.SPLITS:
        images.write(files.split(split), kept[kept["split"] == split])
    rows = pd.DataFrame({"class": ["a", "b"], "lemmas": "x", "hypernyms": "", "definition": "", "train": [8, 3]})
    core_files.write_csv(files.classes, rows.assign(excluded=["too few", ""]))
    size = study_size(files)
    assert size.train == (3,) and size.images["test"] == 2 and size.images["train"] == 3


@pytest.mark.parametrize("name", ["target/images.parquet", "dataset/classes.csv"])
def test_a_damaged_table_ends_no_plan(files, name):
    expected = study_size(files)
    for split in splits.SPLITS:
        images.write(files.split(split), splits.split(files.study.target, files.study.dataset, seed=1).head(1))
    path = Path(files.folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"damaged")
    assert study_size(files) == expected


@pytest.mark.middle  # takes seconds
def test_the_digits_world_is_known_before_it_is_made(tmp_path, monkeypatch):
    """Its classes differ by a few scans, so each split does by as many at most."""
    monkeypatch.chdir(tmp_path)
    study = {"methods": ["none"], "target": {"reader": "digits"}, "dataset": {"train": 0.15, "validation": 0.15}}
    files = StudyFiles(config.parse(ROWS | {"studies": {"s": study}}), "s")
    size = study_size(files)
    digits = files.study.digits
    places = [files.digits(name) for name in ("target", "classes.csv")]
    data.write_target(*places, seed=1, test=digits.test, web=digits.web_scans)
    table = splits.split(files.target_section, files.study.dataset, seed=1)
    assert size.target == len(table)
    for split in splits.SPLITS:
        assert abs(size.images[split] - (table["split"] == split).sum()) <= 10
