"""Splits: disjoint, stratified, rounded as the paper's numbers say; folders and names as people have them."""

import pytest
from PIL import Image

from augbench import digits, target
from augbench.config import Dataset, Target


def make(root, counts):
    for place, (key, count) in enumerate(counts.items()):
        (root / key).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (2, 2), (place, i, 0)).save(root / key / f"{i}.png")
    return Target(reader="folder", path=str(root))


def test_counts_are_the_papers():
    # ImageNet's classes have 732 to 1,300 training images; the paper reports 74 to 130 in its 10%.
    import math

    assert [math.ceil(round(0.1 * n, 9)) for n in (732, 1300)] == [74, 130]


def test_splits_are_disjoint_and_keep_the_imbalance(tmp_path):
    given = make(tmp_path, {"a": 40, "b": 11})
    table = target.split(given, Dataset(train=0.2, validation=0.2, test=0.1), seed=1)
    assert len(table) == table["image_id"].nunique() == 51
    counts = table.groupby(["class", "split"]).size().to_dict()
    assert [counts["a", name] for name in ("train", "validation", "test", "more_real", "unused")] == [
        8,
        8,
        4,
        8,
        12,
    ]
    assert [counts["b", name] for name in ("train", "validation", "test", "more_real")] == [3, 3, 2, 3]


def test_a_class_draws_the_same_whatever_the_others(tmp_path):
    both = target.split(make(tmp_path / "1", {"a": 20, "b": 20}), Dataset(test=0.1), seed=1)
    other = target.split(make(tmp_path / "2", {"a": 20, "c": 5}), Dataset(test=0.1), seed=1)
    pick = [set(t.loc[(t["class"] == "a") & (t["split"] == "train"), "image_id"]) for t in (both, other)]
    assert pick[0] == pick[1]


def test_class_too_small_for_a_split_is_named(tmp_path):
    with pytest.raises(ValueError, match="class b has 1 images, too few"):
        target.split(make(tmp_path, {"a": 20, "b": 1}), Dataset(test=0.1), seed=1)


def test_names_come_from_folders_unless_a_csv_says_more(tmp_path):
    given = make(tmp_path / "data", {"tiger_shark": 3, "n02": 3})
    csv = tmp_path / "names.csv"
    csv.write_text('class,lemmas,hypernyms,definition\nn02,"tench, Tinca tinca",fish,swims\n')
    table = target.class_table(given.model_copy(update={"classes": str(csv)})).set_index("class")
    assert table.loc["tiger_shark", "lemmas"] == "tiger shark"
    assert table.loc["n02"].tolist() == ["tench, Tinca tinca", "fish", "swims"]


def test_the_digits_target_and_the_web_share_no_scan(tmp_path):
    parts = digits.partition(1, test=600, web=500)
    assert sorted(i for part in parts.values() for i in part) == list(range(1797))
    assert [len(parts[name]) for name in ("test", "web", "train")] == [600, 500, 697]
