"""A target in Hugging Face's Parquet, against the same images in class folders."""

import io
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from augbench import images
from augbench.dataset import checks, evaluation_sets, splits
from augbench.dataset.class_table import class_table
from augbench.dataset.verification import Verifier
from augbench.images import parquet_images
from augbench.jobs import new_study, user_data
from augbench.study.config import Dataset, Target
from augbench.study.readers import reader_of
from augbench.study.sections.evaluation import EvaluationSet

NAMES = ["great_tit", "owl", "robin"]
COUNTS = {"train": (9, 14, 11), "validation": (2, 3, 2), "test": (3, 1, 4)}
SHARES = Dataset(train=0.3, validation=0.2, test=0.2)
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(*colour) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (6, 5), colour).save(data, "PNG")
    return data.getvalue()


def rows_of(split):
    """Label and image of each row of a split, its classes one after the other."""
    place = list(COUNTS).index(split)
    return [(label, encoded(label, i, place)) for label, count in enumerate(COUNTS[split]) for i in range(count)]


def note(column="label", names=NAMES) -> dict:
    """What the library datasets writes into a schema."""
    features = {"image": {"_type": "Image"}, column: {"names": list(names), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def write(path, labels, pictures, metadata=None, column="label", group=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pa.array([None if data is None else {"bytes": data, "path": None} for data in pictures], STRUCT)
    table = pa.table({"image": rows, column: labels}).replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=group)
    return path


def parquet(root, parts, kind="names"):
    """A data set as it is published, the rows of each split in two files."""
    for split in parts:
        labels, pictures = zip(*rows_of(split), strict=True)
        kinds = {
            "names": (pa.array(labels), note()),
            "text": (pa.array([NAMES[label] for label in labels]), None),
            "dictionary": (pa.array([NAMES[label] for label in labels]).dictionary_encode(), None),
        }
        column, metadata = kinds[kind]
        half = len(labels) // 2
        for number, part in enumerate((slice(0, half), slice(half, None))):
            name = root / "data" / f"{split}-{number:05d}-of-00002.parquet"
            write(name, column[part], pictures[part], metadata)
    return Target(reader="huggingface", path=str(root))


def class_folders(root, parts):
    for split in parts:
        for number, (label, data) in enumerate(rows_of(split)):
            place = root / (split if len(parts) > 1 else "") / NAMES[label] / f"{number:03}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    return Target(reader="folder", path=str(root))


def content(table) -> dict:
    """Split and class -> the bytes of its images."""
    groups: dict[tuple, list] = {}
    for row, split in zip(table.itertuples(), table["split"], strict=True):
        groups.setdefault((split, row[2]), []).append(images.load_bytes(row))
    return {group: sorted(data) for group, data in groups.items()}


@pytest.mark.parametrize("kind", ["names", "text", "dictionary"])
@pytest.mark.parametrize("parts", [["train"], ["train", "test"], ["train", "validation", "test"]])
def test_splits_pictures_and_classes_are_those_of_class_folders(tmp_path, parts, kind):
    rows, folder = parquet(tmp_path / "hf", parts, kind), class_folders(tmp_path / "folders", parts)
    checks.check(rows)
    tables = [splits.split(target, SHARES, seed=3) for target in (rows, folder)]
    assert content(tables[0]) == content(tables[1])
    assert class_table(rows).equals(class_table(folder))
    assert class_table(rows)["lemmas"].tolist() == ["great tit", "owl", "robin"]
    images.write(tmp_path / "images.parquet", tables[0], extra=["split"])
    table = images.read(tmp_path / "images.parquet")
    for row in table.itertuples():
        assert images.load(row).size == (6, 5)


def test_images_stay_where_they_lie(tmp_path):
    """Nothing is written but the notes of what can be read, and each row names its file."""
    target = parquet(tmp_path / "hf", ["train", "test"])
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    table = splits.split(target, SHARES, seed=3, verifier=Verifier(2, tmp_path / "notes"))
    after = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.name != "notes"}
    assert after == before
    assert set(map(Path, table["path"])) == set((tmp_path / "hf/data").iterdir())
    first = table[table["path"].str.endswith("test-00001-of-00002.parquet")].sort_values("offset").iloc[0]
    assert (first["image_id"], first["offset"]) == ("data/test-00001-of-00002.parquet:0", 0)


def test_each_row_is_decoded_once_until_its_file_changes(tmp_path, monkeypatch):
    target, opened = parquet(tmp_path / "hf", ["train"]), []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda data, name: opened.append(name) or decode(data, name))
    for expected in (sum(COUNTS["train"]), 0):
        opened.clear()
        splits.split(target, SHARES, 3, Verifier(1, tmp_path / "notes"))
        assert len(opened) == len(set(opened)) == expected
    os.utime(tmp_path / "hf/data/train-00001-of-00002.parquet", ns=(1, 1))
    splits.split(target, SHARES, 3, Verifier(1, tmp_path / "notes"))
    assert len(opened) == 17  # of 34


def test_classes_that_are_mixed_in_a_file_are_looked_through_in_one_go(tmp_path, monkeypatch):
    labels = [row % 3 for row in range(40)]
    write(tmp_path / "train.parquet", labels, [encoded(row, 0, 0) for row in range(40)], note(), group=8)
    groups, read = [], parquet_images._batches
    monkeypatch.setattr(parquet_images, "_batches", lambda path, *rest: groups.append(rest[0]) or read(path, *rest))
    target = Target(reader="huggingface", path=str(tmp_path))
    splits.split(target, SHARES, 3)
    assert groups == [[group] for group in range(5)]
    groups.clear()
    classes = pd.DataFrame(
        {"class": NAMES, "lemmas": ["great tit", "owl", "robin"], "excluded": ["", "few images", ""]}
    )
    table = evaluation_sets.read(EvaluationSet(reader="huggingface", path=str(tmp_path)), classes, "stop")
    assert groups == [[group] for group in range(5)] and len(table) == 27


def test_large_row_groups_are_told_where_images_are_drawn_from_the_file(tmp_path, monkeypatch):
    target = parquet(tmp_path, ["train", "test"])
    assert checks.large_row_groups(target) == ""
    monkeypatch.setattr(checks, "LARGE_ROW_GROUP", 100)
    assert checks.large_row_groups(target) == ""  # a classifier keeps so few in memory
    monkeypatch.setattr(checks, "IN_MEMORY", 1000)
    sentence = checks.large_row_groups(target)
    assert "-00000-of-00002.parquet has row groups of 4 images (0 MB)" in sentence and "row_group_size=100" in sentence
    class_folders(tmp_path / "folders", ["train"])
    assert checks.large_row_groups(Target(reader="folder", path=str(tmp_path / "folders"))) == ""


def test_an_unreadable_row_is_named_and_left_out_when_asked(tmp_path, capsys):
    labels, pictures = map(list, zip(*rows_of("train"), strict=True))
    pictures[12] = b"<html>not an image</html>"
    file = write(tmp_path / "train.parquet", labels, pictures, note())
    target = Target(reader="huggingface", path=str(tmp_path))
    with pytest.raises(
        ValueError, match=rf"cannot read row 12 \(counted from 0\) of {file}: Pillow .*unreadable: skip"
    ):
        splits.split(target, SHARES, 3)
    table = splits.split(target.model_copy(update={"unreadable": "skip"}), SHARES, 3)
    assert sorted(table["offset"]) == [row for row in range(34) if row != 12]
    assert "left out: cannot read row 12" in capsys.readouterr().out


def test_rows_without_an_image_are_counted_before_any_work_and_skipped_when_asked(tmp_path):
    labels, pictures = map(list, zip(*rows_of("train"), strict=True))
    file = write(tmp_path / "train.parquet", labels, [None if i in (0, 20) else pictures[i] for i in range(34)], note())
    target = Target(reader="huggingface", path=str(tmp_path))
    with pytest.raises(ValueError, match=rf"2 of the 34 rows of {file} have no image; .*unreadable: skip"):
        checks.check(target)
    skipping = target.model_copy(update={"unreadable": "skip"})
    checks.check(skipping)
    assert len(splits.split(skipping, SHARES, 3)) == 32
    write(file, labels, [None] * 34, note())
    with pytest.raises(ValueError, match="has the bytes of none of its images"):
        checks.check(skipping)


def test_numbers_without_names_are_classes_in_the_order_of_numbers(tmp_path):
    labels = [number for number in (10, 9, 2, 0) for _ in range(3)]
    write(tmp_path / "x.parquet", pa.array(labels, pa.uint8()), [encoded(i, 0, 0) for i in range(12)])
    layout = Target(reader="huggingface", path=str(tmp_path / "x.parquet")).reader.layout(
        Target(reader="huggingface", path=str(tmp_path / "x.parquet"))
    )
    assert list(layout.classes) == ["0", "2", "9", "10"]
    assert [row.number for row in layout.train("9")] == [3, 4, 5]


def test_classes_have_the_order_of_their_numbers_and_only_those_with_images(tmp_path):
    metadata = note("fine_label", ["wren", "gull", "auk"])
    write(tmp_path / "x.parquet", [2, 0, 2, 0], [encoded(i, 0, 0) for i in range(4)], metadata, "fine_label")
    target = Target(reader="huggingface", path=str(tmp_path))
    assert list(target.reader.layout(target).classes) == ["wren", "auk"]


SPLITS = {  # names of files -> the split of each; None: left out
    ("train.parquet", "test.parquet"): ("train", "test"),
    ("default/train/0000.parquet", "default/validation/0000.parquet"): ("train", "validation"),
    ("birds-train.parquet", "birds-test.parquet"): ("train", "test"),
    ("data/train-00000-of-00001-b42a775f407c.parquet", "data/dev-0-of-1.parquet"): (
        "train",
        "validation",
    ),
    ("0000.parquet", "0001.parquet"): ("train", "train"),
    ("train.parquet", "extra.parquet"): ("train", None),
}


@pytest.mark.parametrize("names", SPLITS)
def test_names_of_files_and_folders_say_the_split(tmp_path, names):
    for number, name in enumerate(names):
        write(tmp_path / name, [0, 1], [encoded(number, 0, 0), encoded(number, 1, 0)], note())
    leave = "splits" if None in SPLITS[names] else None
    target = Target(reader="huggingface", path=str(tmp_path), folders=leave)
    layout = target.reader.layout(target)
    lists = {"train": layout.train, **layout.own}
    read = {row.path: split for split, rows in lists.items() for row in rows("owl")}
    assert [read.get(str(tmp_path / name)) for name in names] == list(SPLITS[names])
    assert dict(layout.left_out) == ({"Parquet files of no split": 1} if leave else {})


BYTES = pa.array([encoded(1, 0, 0)])
REFUSED = {
    "no file": ({"readme.md": None}, r"has no \.parquet file"),
    "no image": ({"a.parquet": {"label": [1]}}, "has no column of images"),
    "no label": (
        {"a.parquet": {"image": BYTES, "words": ["a"]}},
        r"no column of labels \(it has image, words\)",
    ),
    "several labels": (
        {"a.parquet": {"image": BYTES, "label": [[1, 2]]}},
        "'label' holds list<.*one number or n",
    ),
    "nested label": ({"a.parquet": {"image": BYTES, "label": [{"name": "a"}]}}, "column 'label' holds struct<"),
    "no number": (
        {"a.parquet": {"image": BYTES, "label": [-1]}},
        r"row 0 .* of .* its label is -1; take",
    ),
    "null": (
        {"a.parquet": {"image": BYTES, "label": pa.array([None], pa.int64())}},
        "of no class: its label is null",
    ),
    "empty": ({"a.parquet": {"image": BYTES, "label": [" "]}}, "is of no class: its label is ' '"),
    "no rows": ({"a.parquet": {"image": BYTES[:0], "label": pa.array([], pa.int64())}}, "has no rows"),
    "other labels": (
        {"a.parquet": {"image": BYTES, "label": [1]}, "b.parquet": {"image": BYTES, "label": ["x"]}},
        "do not label their images alike",
    ),
    "no train": ({"test.parquet": {"image": BYTES, "label": [1]}}, "files named test but none named train"),
    "no split": (
        {"train.parquet": {"image": BYTES, "label": [1]}, "extra.parquet": {"image": BYTES, "label": [1]}},
        "like splits and others, such as .*extra.parquet: .*`folders: splits`",
    ),
    "two splits": ({"train-test.parquet": {"image": BYTES, "label": [1]}}, "named like the splits test and train"),
    "two data sets": (
        {"full/train.parquet": {"image": BYTES, "label": [1]}, "small/train.parquet": {"image": BYTES, "label": [1]}},
        r"several data sets \(full, small\): give the folder of one, e.g. `path: .*/small`",
    ),
    "a class of test alone": (
        {"train.parquet": {"image": BYTES, "label": ["a"]}, "test.parquet": {"image": BYTES, "label": ["b"]}},
        "the test split of .* has the class 'b', which its train split does not have",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_one_sentence(tmp_path, kind):
    files, sentence = REFUSED[kind]
    for name, columns in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if columns:
            pq.write_table(pa.table(columns), tmp_path / name)
        else:
            (tmp_path / name).touch()
    with pytest.raises(ValueError, match=sentence) as raised:
        checks.check(Target(reader="huggingface", path=str(tmp_path)))
    assert "\n" not in str(raised.value)


def test_numbers_beyond_the_names_and_names_that_occur_twice_are_refused(tmp_path):
    target = Target(reader="huggingface", path=str(tmp_path))
    write(tmp_path / "a.parquet", [0, 3], [encoded(1, 0, 0), encoded(2, 0, 0)], note())
    with pytest.raises(ValueError, match=r"row 1 \(counted from 0\) of .*a.parquet is of no class: its label is 3"):
        checks.check(target)
    write(tmp_path / "a.parquet", [0, 1], [encoded(1, 0, 0), encoded(2, 0, 0)], note(names=["crane", "crane"]))
    with pytest.raises(ValueError, match="two classes of its column 'label' are called 'crane'"):
        checks.check(target)


def test_the_digest_is_that_of_the_files_that_are_read(tmp_path):
    target = parquet(tmp_path, ["train", "test"])
    before = user_data.digest_of_target(target)
    (tmp_path / "README.md").write_text("a card")
    assert user_data.digest_of_target(target) == before
    os.utime(tmp_path / "data/test-00000-of-00002.parquet", ns=(1, 1))
    assert user_data.digest_of_target(target) != before


def test_a_new_study_knows_such_a_folder(tmp_path):
    parquet(tmp_path / "hf", ["train", "test"])
    assert reader_of(tmp_path / "hf/data/train-00000-of-00002.parquet").name == "huggingface"
    class_folders(tmp_path / "folders", ["train", "test"])
    shutil.copy(tmp_path / "hf/data/train-00000-of-00002.parquet", tmp_path / "folders/metadata.parquet")
    assert reader_of(tmp_path / "folders").name == "folder"
    pd.DataFrame({"path": ["a.png"], "class": ["a"]}).to_parquet(tmp_path / "list.parquet")
    assert reader_of(tmp_path / "list.parquet").name == "list"
    info = new_study.examine(str(tmp_path / "hf"))
    assert info.target.reader.name == "huggingface"
    assert (list(info.counts.values()), info.own, info.sides[0]) == ([9, 14, 11], {"test"}, 5)
    file = new_study.write(str(tmp_path / "hf"), "birds", tmp_path / "config")
    assert "    target: {reader: huggingface, path: " in file.read_text()


def test_a_further_test_set_is_read_alike(tmp_path):
    parquet(tmp_path, ["train", "test"])
    section = EvaluationSet(reader="huggingface", path=str(tmp_path))
    classes = pd.DataFrame({"class": NAMES, "lemmas": ["great tit", "owl", "robin"], "excluded": ""})
    table = evaluation_sets.read(section, classes, "stop")
    assert table.groupby("class").size().tolist() == list(COUNTS["test"])
    assert sorted(map(images.load_bytes, table.itertuples())) == sorted(data for _, data in rows_of("test"))
    assert user_data.digest_of_layout(section, section.layout())
    alone = tmp_path / "data/test-00000-of-00002.parquet"  # a file that is named alone has no split
    table = evaluation_sets.read(section.model_copy(update={"path": str(alone)}), classes, "stop")
    assert table["class"].tolist() == [NAMES[label] for label, _ in rows_of("test")[:4]]
