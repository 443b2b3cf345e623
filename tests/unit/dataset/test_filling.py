"""Classes of a long-tailed target are topped up to one number: how many images each stage makes, against hand-worked
counts."""

import numpy as np
import pandas as pd
import pytest

from augbench import images
from augbench.classifier.runs import classes_of_run
from augbench.dataset import exclusion, resampling, unions
from augbench.diffusion.sampling_plan import Share
from augbench.study import classes

TRAIN = {"head": 100, "middle": 40, "tail": 5}


def test_what_each_class_lacks():
    assert classes.wanted(TRAIN, None) == TRAIN
    assert classes.wanted(TRAIN, "largest") == {"head": 0, "middle": 60, "tail": 95}
    assert classes.wanted(TRAIN, 50) == {"head": 0, "middle": 10, "tail": 45}
    assert classes.wanted(TRAIN, 120) == {"head": 20, "middle": 80, "tail": 115}
    with pytest.raises(
        ValueError, match="has 40 training images or more, so that `fill_to: largest` adds none: .* 80`"
    ):
        classes.wanted({"a": 40, "b": 40}, "largest")
    with pytest.raises(ValueError, match="`fill_to: 5` adds none: leave it out, or write a larger number"):
        classes.wanted(TRAIN, 5)


def table_of(train, **splits) -> pd.DataFrame:
    rows = [
        {"image_id": f"{key}/{i:03}", "class": key, "path": "x"} for key, count in train.items() for i in range(count)
    ]
    table = images.table(rows)
    table["split"] = "train"
    return table


def test_retrieval_asks_for_what_is_missing_alone():
    table = table_of(TRAIN)
    assert classes.retrieved(table, None, 1, "largest") == {"head": 0, "middle": 60, "tail": 95}
    assert classes.retrieved(table, None, 0.5, 50) == {"head": 0, "middle": 5, "tail": 23}  # half of 45, rounded up
    assert classes.retrieved(table, 50, 2) == {"head": 200, "middle": 100, "tail": 100}


def test_generation_makes_what_is_missing_alone():
    rows = [{"class": key, "wanted": count} for key, count in classes.wanted(TRAIN, "largest").items()]
    share = Share("m", "base", 0, 1, ratio=1, times=3)
    assert share.counts(rows, None) == ([0, 3 * 60, 3 * 95], [0, 0, 0])
    screen = Share("m", "screen", 0, 1, ratio=1, times=3)
    assert screen.counts(rows, None)[0] == [0, 60, 95]


def write_dataset(folder, excluded, fill_to):
    keys = pd.DataFrame({"class": list(TRAIN), "lemmas": list(TRAIN), "hypernyms": "", "definition": ""})
    paths = [folder / f"{k}.parquet" for k in range(5)]
    exclusion.write_dataset(keys, table_of(TRAIN), excluded, folder / "classes.csv", paths, fill_to)
    return classes.read(folder / "classes.csv").set_index("class")


def test_the_class_table_says_what_is_missing(tmp_path):
    """Of the largest class of all, also where retrieval cannot fill it: as retrieval asked."""
    assert write_dataset(tmp_path, {}, "largest")["wanted"].to_dict() == {"head": 0, "middle": 60, "tail": 95}
    found = write_dataset(tmp_path, {"head": "no"}, "largest")
    assert found.loc[found["excluded"] == "", "wanted"].to_dict() == {"middle": 60, "tail": 95}
    assert write_dataset(tmp_path, {}, None)["wanted"].to_dict() == TRAIN
    assert "wanted" not in (tmp_path / "classes.csv").read_text().splitlines()[0]


def drawn(counts, there, order, ratio=1.0) -> dict[str, int]:
    """Images of each class in a set."""
    added = table_of(there)
    (places,) = resampling.draw(added, counts, ratio=ratio, splits=1, order=order, seed_key=(0,))
    return added["class"].iloc[places].value_counts().to_dict()


def test_sets_fill_each_class_to_one_number():
    counts = classes.wanted(TRAIN, "largest")
    there = {"head": 9, "middle": 180, "tail": 285}
    for order in ("random", "listed"):
        found = drawn(counts, there, order)
        assert {key: TRAIN[key] + found.get(key, 0) for key in TRAIN} == dict.fromkeys(TRAIN, 100)
        assert drawn(counts, there, order, ratio=0.5) == {"middle": 30, "tail": 48}  # round(47.5) is even


def test_further_real_images_fill_as_far_as_there_are_any():
    counts = classes.wanted(TRAIN, "largest")
    assert drawn(counts, {"head": 100, "middle": 70, "tail": 5}, "available") == {"middle": 60, "tail": 5}
    with pytest.raises(ValueError, match="class 'tail': at least one image is wanted"):
        drawn(counts, {"head": 100, "middle": 70}, "available")


def test_a_union_shares_out_what_is_missing():
    parts = [unions.Part("a", "1/2"), unions.Part("b", "1/2")]
    allocated = unions.allocate(classes.wanted(TRAIN, "largest"), parts)
    assert allocated == {"head": [0, 0], "middle": [30, 30], "tail": [48, 47]}
    tables = [table_of({"middle": 30, "tail": 60})] * 2
    found = unions.draw(tables, allocated, parts, seed_key=(0,))
    assert np.bincount(found["part"]).tolist() == [78, 77]


def test_a_class_that_lacks_nothing_is_trained_on_all_the_same():
    added = table_of({"middle": 3, "tail": 3})
    assert classes_of_run(list(TRAIN), added, ["head"]) == list(TRAIN)
    assert classes_of_run(list(TRAIN), added) == ["middle", "tail"]
