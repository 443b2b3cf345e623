"""Filters by score: which images are left out, in what order and why; numbers worked by hand."""

import numpy as np
import pandas as pd
import pytest

from augbench import images
from augbench.core.files import BadInput
from augbench.dataset import filtering
from augbench.dataset.resampling import draw
from augbench.study.scores import COLUMNS
from augbench.study.sections.filter import Filter


def scores(rows):
    """A table of scores; what a row leaves out is far from everything."""
    far = {"train_bits": 30.0, "held_out_bits": 30.0, "held_out_distance": 0.9, "novelty": 30.0}
    return pd.DataFrame([far | {"class": "a"} | row for row in rows]).reindex(columns=COLUMNS)


def rule(**keys):
    return Filter.model_validate(keys)


def test_the_best_share_of_each_class_is_kept_and_ties_go_by_order():
    """Of five images at 0.6 three, of two at 0.6 two; of equal scores the first ones."""
    values = [("a", 0.1), ("a", 0.3), ("a", 0.2), ("a", 0.2), ("a", 0.2), ("b", -1), ("b", -2)]
    table = scores([{"image_id": f"{i}", "class": key, "clip": value} for i, (key, value) in enumerate(values)])
    ledger = filtering.refused(table, None, rule(by="clip", keep=0.6))
    assert ledger["image_id"].tolist() == ["0", "4"]
    assert ledger["threshold"].tolist() == [0.2, 0.2] and ledger["score"].tolist() == [0.1, 0.2]
    assert ledger["reason"].tolist() == ["not among the best 60% of its class"] * 2
    assert filtering.refused(table, None, rule(by="clip", keep=1.0)).empty
    low = filtering.refused(table, None, rule(by="clip", at_least=0.2))
    assert low["image_id"].tolist() == ["0", "5", "6"] and set(low["reason"]) == {"below the threshold"}


def test_leaks_go_first_and_name_the_held_out_image():
    """By hash in fewer than ten bits; by embedding only where it counts. The filter sees what is left."""
    table = scores(
        [
            {"image_id": "copy", "clip": 0.9, "held_out_bits": 9, "held_out_bits_id": "test/1"},
            {"image_id": "near", "clip": 0.8, "held_out_bits": 10, "held_out_distance": 0.1},
            {"image_id": "good", "clip": 0.7},
            {"image_id": "poor", "clip": 0.1},
        ]
    )
    table["held_out_distance_id"] = ["", "test/2", "", ""]
    ledger = filtering.refused(table, filtering.Leaks(10), rule(by="clip", keep=0.5))
    assert ledger["image_id"].tolist() == ["copy", "poor"]  # half of the three that are left is two of them
    assert ledger.iloc[0][["by", "score", "threshold"]].tolist() == ["held_out_bits", 9, 10]
    assert ledger.iloc[0]["reason"] == "may be a copy of the held-out image test/1"
    ledger = filtering.refused(table, filtering.Leaks(10, 0.1), None)
    assert ledger["image_id"].tolist() == ["copy", "near"] and ledger.iloc[1]["by"] == "held_out_distance"
    assert ledger.iloc[1]["reason"].endswith("test/2")
    assert list(filtering.refused(table, None, None).columns) == filtering.LEDGER


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"at_least": 2.0}, r"leaves none of the 4 images of the class 'a'; write a lower `at_least` than 2, or leave"),
        ({"keep": 0.5}, r"leaves 2 of the 4 images of the class 'a', but 3 are added to it; write a higher `keep`"),
    ],
)
def test_a_class_with_too_few_images_is_a_sentence(keys, message):
    table = scores([{"image_id": f"{i}", "confidence": i / 10} for i in range(4)])
    section = rule(by="confidence", **keys)
    counts = filtering.counted(table, filtering.refused(table, None, section), {"a": 3})
    with pytest.raises(BadInput, match="the filter of mine by confidence " + message):
        filtering.check(counts, "mine", section, False)
    if "keep" in keys:
        filtering.check(counts, "mine", section, True)
        assert counts.iloc[0].tolist() == ["a", 4, 0, 2, 2, 3]


def test_a_class_of_which_all_may_be_copies_is_a_sentence():
    table = scores([{"image_id": "x", "held_out_bits": 0}])
    counts = filtering.counted(table, filtering.refused(table, filtering.Leaks(10), None), {"a": 1, "none": 1})
    with pytest.raises(BadInput, match="all 1 images of mine of the class 'a' may be copies .*`drop_leaks: false`"):
        filtering.check(counts, "mine", None, False)


def test_files_hold_the_rows_that_are_kept(tmp_path):
    """Of two tables, some of whose images were not scored; the rows are those of the tables."""
    rows = [{"image_id": f"m/{i}", "class": "a", "path": f"{i}.png", "prompt": f"p{i}"} for i in range(6)]
    for name, mine in (("one", rows[:4]), ("two", rows[4:])):
        images.write(tmp_path / f"{name}.parquet", images.table(mine))
    table = scores([{"image_id": f"m/{i}", "train_bits": bits} for i, bits in ((0, 0), (1, 20), (3, 30), (5, 3))])
    table["train_bits_id"] = "train/7"
    table.to_parquet(tmp_path / "scores.parquet")
    sources = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    outputs = {name: tmp_path / "out" / name for name in ("images", "ledger", "counts")}
    settings = {"rule": {"by": "train_bits", "at_least": 10}, "leaks": None, "ratio": 1.0}
    filtering.write(outputs, sources, tmp_path / "scores.parquet", {"a": 2}, method="m", **settings)
    kept = images.read(outputs["images"])
    assert kept[["image_id", "prompt"]].to_numpy().tolist() == [["m/1", "p1"], ["m/3", "p3"]]
    ledger = pd.read_csv(outputs["ledger"])
    assert ledger["image_id"].tolist() == ["m/0", "m/5"] and ledger["reason"].str.endswith("nearest train/7").all()
    assert pd.read_csv(outputs["counts"]).to_numpy().tolist() == [["a", 4, 0, 2, 2, 2]]


def test_of_a_listed_class_with_fewer_images_all_are_added():
    added = pd.DataFrame({"image_id": ["x", "y"], "class": ["a", "b"]})
    settings = {"ratio": 1.0, "splits": 1, "order": "listed", "seed_key": (1,)}
    assert draw(added, {"a": 2, "b": 1}, **settings)[0].tolist() == [1]
    assert np.sort(draw(added, {"a": 2, "b": 1}, **settings, allow_fewer=True)[0]).tolist() == [0, 1]
