"""A class that retrieval cannot fill takes no part, for any method."""

import pandas as pd
import pytest

from augbench import images
from augbench.dataset import exclusion, splits
from augbench.study import classes

COUNTS = {"a": 3, "b": 3, "c": 3}


def ledger(**used):
    rows = [{"class": key, "fate": fate} for key, count in used.items() for fate in ["used"] * count + ["spare"]]
    return pd.DataFrame(rows)


def target():
    rows = [
        {"image_id": f"{key}/{split}/{i}", "class": key, "path": "x", "split": split}
        for key in COUNTS
        for split in splits.SPLITS
        for i in range(2)
    ]
    return images.table(rows).assign(split=[row["split"] for row in rows])


def named(*keys):
    return pd.DataFrame({"class": keys, "lemmas": keys, "hypernyms": "", "definition": ""})


def write(folder, excluded):
    paths = [folder / f"{split}.parquet" for split in splits.SPLITS]
    exclusion.write_dataset(named(*COUNTS), target(), excluded, folder / "classes.csv", paths)
    return classes.read(folder / "classes.csv").set_index("class"), [images.read(path) for path in paths]


def test_the_first_method_that_falls_short_says_why():
    ledgers = {"near": ledger(a=3, b=2, c=3), "far": ledger(a=3, b=0, c=1)}
    assert exclusion.shortfall(ledgers, COUNTS) == {
        "b": "near found 2 of 3 images",
        "c": "far found 1 of 3 images",
    }
    assert exclusion.shortfall({}, COUNTS) == {}


def test_an_excluded_class_is_in_no_split_and_in_the_class_table(tmp_path, capsys):
    table, parts = write(tmp_path, {"b": "near found 2 of 3 images"})
    assert all(set(part["class"]) == {"a", "c"} for part in parts)
    assert list(table["excluded"]) == ["", "near found 2 of 3 images", ""]
    assert list(table["train"]) == [2, 2, 2]
    assert [row["class"] for row in classes.kept(tmp_path / "classes.csv")] == ["a", "c"]
    assert "excluded for every method: b: near found 2 of 3 images" in capsys.readouterr().out


def test_a_study_of_one_class_is_none(tmp_path):
    with pytest.raises(SystemExit, match="fewer than two classes are left"):
        write(tmp_path, dict.fromkeys("bc", "x"))
    assert not list(tmp_path.iterdir())


def test_as_many_images_are_retrieved_as_there_are_training_images_and_more_where_it_is_said():
    table = target()
    assert classes.retrieved(table, None, 1.5) == dict.fromkeys("abc", 3)
    assert classes.retrieved(table, 7, 1.0) == dict.fromkeys("abc", 7)
