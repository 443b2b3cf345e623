"""Splits: disjoint, stratified, rounded as the paper's numbers say; folders and names as people have them."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from augbench.dataset import checks, splits
from augbench.dataset.class_table import class_table
from augbench.digits import data
from augbench.study.config import Dataset, Target
from augbench.study.readers import imagenet


def make(root, counts):
    for place, (key, count) in enumerate(counts.items()):
        (root / key).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (2, 2), (place, i, 0)).save(root / key / f"{i}.png")
    return Target(reader="folder", path=str(root))


def test_counts_are_the_papers():
    """ImageNet's classes have 732 to 1,300 training images; the paper reports 74 to 130 in its 10%."""
    tenth = Dataset(train=0.1, validation=0.1)
    assert [splits.sizes(count, tenth, own={"test"})["train"] for count in (732, 1300)] == [74, 130]


def test_splits_are_disjoint_and_keep_the_imbalance(tmp_path):
    given = make(tmp_path, {"a": 40, "b": 11})
    table = splits.split(given, Dataset(train=0.2, validation=0.2, test=0.1), seed=1)
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


def test_an_unreadable_image_is_named_and_left_out_when_asked(tmp_path, capsys):
    given, shares = make(tmp_path, {"a": 10, "b": 10}), Dataset(train=0.3, validation=0.3, test=0.3)
    (tmp_path / "a" / "bad.jpg").write_bytes(b"<html>not an image</html>")
    with pytest.raises(ValueError, match=r"cannot read .*a/bad\.jpg.*; repair or remove it, or set `unreadable: skip`"):
        splits.split(given, shares, seed=1)
    table = splits.split(given.model_copy(update={"unreadable": "skip"}), shares, seed=1)
    assert len(table) == 20
    assert "left out: cannot read" in capsys.readouterr().out


def test_full_imagenet_is_all_but_the_validation_split_of_ten_percent(tmp_path):
    given = make(tmp_path, {"a": 73, "b": 130})
    (tmp_path / "train").mkdir()
    for key in "ab":
        (tmp_path / key).rename(tmp_path / "train" / key)
        (tmp_path / "test" / key).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tmp_path / "test" / key / "0.png")
    small, full = (splits.split(given, Dataset(train=share, validation=0.1), seed=1) for share in (0.1, 0.9))
    validation = [set(table.loc[table["split"] == "validation", "image_id"]) for table in (small, full)]
    assert validation[0] == validation[1]
    assert len(validation[0]) == 8 + 13
    assert (full["split"] == "train").sum() == 73 + 130 - 21
    assert not (full["split"] == "unused").any()


@pytest.mark.parametrize(("count", "expected"), [(80, (64, 8, 8)), (81, (65, 8, 8)), (119, (96, 12, 11))])
def test_what_training_leaves_of_caltech256_makes_two_equal_parts(count, expected):
    found = splits.sizes(count, Dataset(train=0.8, validation=0.1, test=0.1))
    assert tuple(found[name] for name in ("train", "validation", "test")) == expected
    assert found["more_real"] == 0


def test_shots_are_exact_and_those_of_fewer_are_among_those_of_more(tmp_path):
    given, taken = make(tmp_path, {"a": 40, "b": 23}), {}
    for shots in (1, 2, 4, 8, 16):
        table = splits.split(given, Dataset(shots=shots), seed=3)
        taken[shots] = {name: set(rows["image_id"]) for name, rows in table.groupby("split")}
        for count in table[table["split"] == "train"].groupby("class").size():
            assert count == shots
        # of the two classes as many as shots, at most four; and a tenth of 40 and of 23, rounded up
        assert [len(taken[shots][name]) for name in ("validation", "test")] == [2 * min(shots, 4), 4 + 3]
        assert taken[shots]["test"] == taken[1]["test"]
    for fewer, more in ((1, 2), (2, 4), (4, 8), (8, 16)):
        assert taken[fewer]["train"] < taken[more]["train"]
        assert taken[fewer]["validation"] <= taken[more]["validation"]
    assert taken[1]["validation"] < taken[2]["validation"] and taken[4]["validation"] == taken[16]["validation"]
    assert len(taken[16]["more_real"]) == 16 + 0  # what the others leave of b: 23 - 4 - 3 - 16
    assert taken[8]["train"] != set(splits.split(given, Dataset(shots=8), seed=4).query("split == 'train'")["image_id"])


def test_a_class_with_fewer_images_than_shots_is_named(tmp_path):
    given = make(tmp_path, {"a": 40, "b": 10})
    with pytest.raises(ValueError, match=r"class b has 10 images, of which 5 are left .* than 9 shots: write `sho"):
        splits.split(given, Dataset(shots=9), seed=1)
    assert splits.sizes(10, Dataset(shots=9), own={"test"})["train"] == 6  # no test images are drawn
    assert splits.sizes(10, Dataset(shots=9, validation=0.1), own={"test"})["train"] == 9
    assert splits.sizes(10, Dataset(shots=9), own={"test", "validation"})["train"] == 9
    with pytest.raises(ValueError, match="leave out `train`"):
        Dataset(shots=9, train=0.5)


def test_the_first_image_of_a_large_folder_is_found_without_reading_all_of_it(tmp_path, monkeypatch):
    given = make(tmp_path, {"a": 50, "b": 50})
    taken = []
    scandir = os.scandir

    class Counting:
        def __init__(self, path):
            self.entries = scandir(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.entries.close()

        def __iter__(self):
            for entry in self.entries:
                taken.append(entry.path)
                yield entry

    monkeypatch.setattr(os, "scandir", Counting)
    checks.check(given)
    assert sum(path.endswith(".png") for path in taken) <= 6


def test_a_class_draws_the_same_whatever_the_others(tmp_path):
    both = splits.split(make(tmp_path / "1", {"a": 20, "b": 20}), Dataset(test=0.1), seed=1)
    other = splits.split(make(tmp_path / "2", {"a": 20, "c": 5}), Dataset(test=0.1), seed=1)
    pick = [set(t.loc[(t["class"] == "a") & (t["split"] == "train"), "image_id"]) for t in (both, other)]
    assert pick[0] == pick[1]


def test_class_too_small_for_a_split_is_named(tmp_path):
    with pytest.raises(ValueError, match="class b has 1 images, too few"):
        splits.split(make(tmp_path, {"a": 20, "b": 1}), Dataset(test=0.1), seed=1)


def test_names_come_from_folders_unless_a_csv_says_more(tmp_path):
    given = make(tmp_path / "data", {"tiger_shark": 3, "n02": 3})
    csv = tmp_path / "names.csv"
    csv.write_text('class,lemmas,hypernyms,definition\nn02,"tench, Tinca tinca",fish,swims\n')
    table = class_table(given.model_copy(update={"classes": str(csv)})).set_index("class")
    assert table.loc["tiger_shark", "lemmas"] == "tiger shark"
    assert table.loc["n02"].tolist() == ["tench, Tinca tinca", "fish", "swims"]
    csv.write_text('class,lemmas,aliases\nn02,tench,"doctor fish, tenches"\n')
    table = class_table(given.model_copy(update={"classes": str(csv)})).set_index("class")
    assert table["synonyms"].to_dict() == {"n02": "doctor fish, tenches", "tiger_shark": ""}


def test_a_small_csv_overrides_some_names_of_imagenet_and_no_more(tmp_path):
    ilsvrc(tmp_path)
    for wnid in WNIDS:
        picture(tmp_path / "val" / wnid / "1.JPEG", 1)
    csv = tmp_path / "names.csv"
    csv.write_text(f'class,lemmas,hypernym,definition\n{WNIDS[1]},"crane, hoist",,\n', encoding="utf-8-sig")
    given = Target(reader="imagenet", path=str(tmp_path), classes=str(csv))
    plain = class_table(given.model_copy(update={"classes": None})).set_index("class")
    table = class_table(given).set_index("class")
    assert table["lemmas"].to_list() == ["crane", "crane, hoist"]
    assert table.loc[WNIDS[1], "definition"] == plain.loc[WNIDS[1], "definition"] != ""
    csv.write_text(f"class,lemmas,hypernym\n{WNIDS[1]},hoist,lifting device\n")
    assert class_table(given).set_index("class").loc[WNIDS[1], "hypernyms"] == "lifting device"
    csv.write_text("class,lemmas\nn0312670,hoist\n")
    with pytest.raises(
        ValueError, match="names the class 'n0312670', which .* does not have, did you mean 'n03126707'"
    ):
        class_table(given)


def test_the_digits_target_and_the_web_share_no_scan(tmp_path):
    parts = data.partition(1, test=600, web=500)
    assert sorted(i for part in parts.values() for i in part) == list(range(1797))
    assert [len(parts[name]) for name in ("test", "web", "train")] == [600, 500, 697]


# --- layouts as people have them ------------------------------------------------------------------------

WNIDS = ["n02012849", "n03126707"]  # both are called crane


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), (shade, 0, 0)).save(path, "PNG")


def ilsvrc(root):
    """A flat validation set of six images; the third, fourth and sixth show the second class."""
    for place, wnid in enumerate(WNIDS):
        for i in range(5):
            picture(root / "train" / wnid / f"{wnid}_{i}.JPEG", 10 * place + i)
    for i in range(1, 7):
        picture(root / "val" / f"ILSVRC2012_val_{i:08d}.JPEG", 100 + i)
    return {f"ILSVRC2012_val_{i:08d}": WNIDS[i in (3, 4, 6)] for i in range(1, 7)}


def answers(table):
    rows = table[table["split"] == "test"]
    return {Path(path).stem: key for path, key in zip(rows["path"], rows["class"], strict=True)}


def test_imagenets_flat_validation_images_are_told_apart_by_the_devkit(tmp_path):
    truth = ilsvrc(tmp_path)
    devkit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    devkit.mkdir(parents=True)
    # Numbers that are not in the order of the names, as in the real table, and a synset that is no class.
    synsets = np.array([(7, WNIDS[0]), (2, WNIDS[1]), (1001, "n00001740")], [("ILSVRC2012_ID", "O"), ("WNID", "O")])
    savemat(devkit / "meta.mat", {"synsets": synsets})
    numbers = "".join(f"{ {WNIDS[0]: 7, WNIDS[1]: 2}[truth[name]] }\n" for name in sorted(truth))
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text(numbers)
    given = Target(reader="imagenet", path=str(tmp_path), ground_truth=str(devkit.parent))
    checks.check(given)
    table = splits.split(given, Dataset(train=0.4, validation=0.4), seed=1)
    assert answers(table) == truth
    assert table[table["split"] == "train"].groupby("class").size().to_dict() == dict.fromkeys(WNIDS, 2)
    names = class_table(given).set_index("class")
    assert names["lemmas"].to_list() == ["crane", "crane"]
    assert names.loc[WNIDS[0], "definition"] != names.loc[WNIDS[1], "definition"]
    with pytest.raises(ValueError, match="names 6 validation images, there are 7"):
        picture(tmp_path / "val" / "ILSVRC2012_val_00000007.JPEG", 1)
        splits.split(given, Dataset(train=0.4, validation=0.4), seed=1)


def test_imagenets_validation_images_by_a_table_or_by_folders(tmp_path):
    truth = ilsvrc(tmp_path)
    given = Target(reader="imagenet", path=str(tmp_path))
    with pytest.raises(ValueError, match="has no class folders: give `ground_truth`"):
        checks.check(given)
    rows = [f"{name},{wnid} 1 2 3 4 {wnid} 5 6 7 8" for name, wnid in truth.items()]
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows))
    by_table = given.model_copy(update={"ground_truth": str(tmp_path / "LOC_val_solution.csv")})
    assert answers(splits.split(by_table, Dataset(train=0.4, validation=0.4), seed=1)) == truth
    for name, wnid in truth.items():
        (tmp_path / "val" / wnid).mkdir(exist_ok=True)
        (tmp_path / "val" / f"{name}.JPEG").rename(tmp_path / "val" / wnid / f"{name}.JPEG")
    assert answers(splits.split(given, Dataset(train=0.4, validation=0.4), seed=1)) == truth


def test_caltech256_has_its_own_names_and_no_clutter(tmp_path):
    for name in ("016.boom-box", "253.faces-easy-101", "257.clutter"):
        for i in range(10):
            picture(tmp_path / "256_ObjectCategories" / name / f"{name[:3]}_{i:04d}.jpg", i)
    given = Target(reader="caltech256", path=str(tmp_path))
    checks.check(given)
    table = splits.split(given, Dataset(train=0.8, validation=0.1, test=0.1), seed=1)
    assert class_table(given)["lemmas"].to_list() == ["boom box", "faces easy"]
    counts = table.groupby(["class", "split"]).size()
    assert counts.to_dict() == {
        (key, split): n
        for key in ("016.boom-box", "253.faces-easy-101")
        for split, n in {"train": 8, "validation": 1, "test": 1}.items()
    }


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_list_says_where_images_lie_and_which_are_for_testing(tmp_path, kind):
    rows = []
    for key in ("cat", "dog"):
        for i in range(4):
            picture(tmp_path / "pool" / f"{key}{i}.png", i)
            rows.append({"path": f"pool/{key}{i}.png", "class": key, "split": "test" if i == 3 else "train"})
    table = pd.DataFrame(rows)
    path = tmp_path / f"list.{kind}"
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    given = Target(reader="list", path=str(path))
    checks.check(given)
    found = splits.split(given, Dataset(train=0.5, validation=0.3), seed=1)
    assert answers(found) == {"cat3": "cat", "dog3": "dog"}
    assert (found["split"] == "train").sum() == 4
    table.drop(columns="class").to_csv(tmp_path / "bad.csv")
    with pytest.raises(ValueError, match="needs the columns path,class; class is missing"):
        checks.check(given.model_copy(update={"path": str(tmp_path / "bad.csv")}))


def test_the_synset_table_has_imagenets_classes():
    table = pd.read_csv(imagenet.SYNSETS)
    assert len(table) == table["class"].nunique() == 1000
    assert (table["lemmas"] == "crane").sum() == 2


def held_out(root, **splits):
    """A folder with these splits: name -> class -> number of images."""
    for split, counts in splits.items():
        make(root / split, counts)
    return Target(reader="folder", path=str(root))


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_validation_split_of_ones_own_is_taken_whole(tmp_path, name):
    given = held_out(tmp_path, train={"a": 10, "b": 6}, test={"a": 2, "b": 3}, **{name: {"a": 4, "b": 1}})
    table = splits.split(given, Dataset(train=0.5, validation=0.1), seed=1)
    counts = table.groupby(["split", "class"]).size().to_dict()
    assert counts == {
        ("train", "a"): 5, ("train", "b"): 3, ("more_real", "a"): 5, ("more_real", "b"): 3,
        ("validation", "a"): 4, ("validation", "b"): 1, ("test", "a"): 2, ("test", "b"): 3,
    }  # fmt: skip
    own = table[table["split"].isin(["validation", "test"])]
    assert set(own["image_id"].str.split("/").str[0]) == {name, "test"}
    everything = splits.split(given, Dataset(train=1.0, validation=0.1), seed=1)
    assert (everything["split"] == "train").sum() == 16


def test_without_a_test_folder_the_test_split_is_drawn(tmp_path):
    given = held_out(tmp_path, train={"a": 10, "b": 6}, val={"a": 4, "b": 1})
    table = splits.split(given, Dataset(train=0.8, validation=0.9, test=0.2), seed=1)
    counts = table.groupby(["split", "class"]).size().to_dict()
    assert counts["validation", "a"] == 4 and counts["test", "a"] == 2 and counts["test", "b"] == 1
    assert all(name.startswith("train/") for name in table.loc[table["split"] == "test", "image_id"])


def test_a_class_of_a_held_out_split_must_be_one_of_training(tmp_path):
    given = held_out(tmp_path, train={"a": 2, "b": 2}, val={"a": 1, "c": 1})
    with pytest.raises(ValueError, match=r"val/c is a class that .*train does not have"):
        given.reader.layout(given)


def test_a_list_may_name_all_three_splits(tmp_path):
    make(tmp_path, {"a": 6, "b": 6})
    rows = [(f"{key}/{i}.png", key, ("train", "train", "validation")[i % 3]) for key in "ab" for i in range(6)]
    pd.DataFrame(rows, columns=["path", "class", "split"]).to_csv(tmp_path / "list.csv", index=False)
    given = Target(reader="list", path=str(tmp_path / "list.csv"))
    table = splits.split(given, Dataset(train=0.5, test=0.5), seed=1)
    assert table["split"].value_counts().to_dict() == {"train": 4, "validation": 4, "test": 4}
