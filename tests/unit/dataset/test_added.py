"""Images that were made elsewhere as an image table: classes, sources, counts, and exports that come back."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from augbench import images
from augbench.core.files import BadInput
from augbench.dataset import added
from augbench.dataset.export import FORMATS, export
from augbench.study.layouts import AddedImage

KEYS = ["cat", "dog/wild", "Emu"]


def row(label, name="1.png", **facts):
    return AddedImage(name, label, "x.png", facts=facts)


@pytest.mark.parametrize(
    ("label", "key"),
    [("cat", "cat"), ("dog/wild", "dog/wild"), ("dog_wild", "dog/wild"), ("0", "Emu"), ("1", "cat"), ("2", "dog/wild")],
)
def test_a_class_is_known_by_its_key_its_exported_folder_and_its_exported_label(label, key):
    assert list(added.read("mine", "data", KEYS, [row(label)])["class"]) == [key]


def test_a_key_that_is_a_number_is_no_label():
    assert list(added.read("mine", "data", ["2", "0", "11"], [row("2")])["class"]) == ["2"]


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        ("kat", r"data has an image of the class 'kat' \(1.png\), which the target does not have; is it 'cat'\?"),
        ("CAT", "is it 'cat'"),
        ("zebra", "its classes are Emu, cat, dog/wild"),
        ("3", "its classes are"),
    ],
)
def test_an_unknown_class_is_named_with_the_nearest(label, sentence):
    with pytest.raises(BadInput, match=sentence):
        added.read("mine", "data", KEYS, [row(label)])


def test_an_image_twice_and_none_at_all_are_refused():
    with pytest.raises(BadInput, match="data has 1.png twice"):
        added.read("mine", "data", KEYS, [row("cat"), row("cat")])
    with pytest.raises(BadInput, match="data holds no image"):
        added.read("mine", "data", KEYS, [])


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(BadInput, match=r"the name of caf\\xe9.png is not UTF-8; rename it"):
        added.read("mine", "data", KEYS, [AddedImage("x", "cat", b"caf\xe9.png".decode(errors="surrogateescape"))])


def test_what_is_known_of_an_image_stands_in_the_table():
    facts = {"prompt": "a cat", "seed": "12", "model": "SDXL", "licence": "CC0"}
    rows = [row("cat", "1.png", **facts), row("cat", "2.png", seed=str(2**64)), row("cat", "3.png", seed="abc")]
    table = added.read("mine", "data", KEYS, rows)
    assert table.loc[0, list(facts)].to_dict() == facts | {"seed": 12}
    assert list(table["image_id"]) == ["mine/1.png", "mine/2.png", "mine/3.png"]
    assert table["seed"].isna().tolist() == [False, True, True]


# --- sources --------------------------------------------------------------------------------------------


def target(*rows) -> pd.DataFrame:
    """Rows (path below data/birds, split); the class is the folder of the file."""
    table = images.table(
        {"image_id": path, "class": path.split("/")[-2], "path": f"data/birds/{path}"} for path, _ in rows
    )
    return table.assign(split=[split for _, split in rows])


BIRDS = target(
    ("robin/1.jpg", "train"),
    ("robin/2.jpg", "test"),
    ("wren/1.jpg", "validation"),
    ("wren/3.jpg", "train"),
    ("tit/1.jpg", "test"),
    ("owl/9.v2.png", "unused"),
)


def start(source, label="robin"):
    table = pd.DataFrame({"image_id": ["mine/x.png"], "class": [label], "source": [source]})
    return added.start_images(table, BIRDS)[0]


@pytest.mark.parametrize(
    ("source", "label", "start_image"),
    [
        ("data/birds/robin/1.jpg", "robin", "robin/1.jpg"),
        ("/elsewhere/data/birds/robin/1.jpg", "wren", "robin/1.jpg"),
        (r"birds\robin\1.jpg", "robin", "robin/1.jpg"),
        ("1.jpg", "robin", "robin/1.jpg"),
        ("1", "robin", "robin/1.jpg"),
        ("3.jpg", "robin", "wren/3.jpg"),
        ("real-0000001.png", "robin", None),
        ("owl/9.v2.png", "robin", None),  # of a split that no method has trained on
        ("", "robin", None),
    ],
)
def test_a_source_is_the_image_whose_path_ends_like_it(source, label, start_image):
    assert start(source, label) == start_image


@pytest.mark.parametrize(
    ("source", "label", "sentence"),
    [
        ("data/birds/robin/2.jpg", "robin", "mine/x.png was made from robin/2.jpg, an image of the test split"),
        ("2.jpg", "wren", "was made from robin/2.jpg, an image of the test split"),
        ("2", "wren", "was made from robin/2.jpg"),
        ("wren/1.jpg", "robin", "was made from wren/1.jpg, an image of the validation split"),
        ("1.jpg", "wren", "was made from wren/1.jpg"),
        ("1.jpg", "owl", "'1.jpg', may be robin/1.jpg or .*/1.jpg, an image of the .* split: write sources as paths"),
    ],
)
def test_a_source_that_is_held_out_or_may_be_is_refused_by_name(source, label, sentence):
    with pytest.raises(BadInput, match=sentence):
        start(source, label)


# --- counts, unreadable images --------------------------------------------------------------------------


def test_too_few_images_are_said_of_the_class_that_lacks_most():
    table = pd.DataFrame({"class": ["a"] * 3 + ["b"] * 2})
    added.check_counts(table, {"a": 3, "b": 2}, "data")
    with pytest.raises(BadInput, match=r"^the class b has 2 images in data, but 5 are added to it; .*allow_fewer: tr"):
        added.check_counts(table, {"a": 3, "b": 5}, "data")
    with pytest.raises(BadInput, match=r"the class c has 0 images .*\(2 of 3 classes have too few\)"):
        added.check_counts(table, {"a": 4, "b": 2, "c": 9}, "data")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Two classes of three training images each, a test image, and a folder of two images of each class."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = []
    for key in ("a", "b/c"):
        for i in range(4):
            path = Path("target") / key.replace("/", "-") / f"{i}.png"
            save(path, random)
            split = "train" if i < 3 else "test"
            rows.append({"image_id": f"{key}/{i}.png", "class": key, "path": str(path), "split": split})
        for i in range(2):
            save(Path("mine") / key.replace("/", "_") / f"{i}.png", random)
    table = images.table(rows).assign(split=[each["split"] for each in rows])
    classes = pd.DataFrame({"class": ["a", "b/c"], "lemmas": "x", "train": 3, "wanted": 3, "excluded": ""})
    return table, classes


def save(path, random):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 255, (5, 5, 3), np.uint8)).save(path)


def write(made, place="mine", policy="stop", ratio=0.5):
    table, classes = made
    added.write("out.parquet", "mine", place, classes, table, policy, ratio)
    return images.read("out.parquet")


def test_images_are_listed_and_each_can_be_loaded(made):
    table = write(made)
    assert table["class"].value_counts().to_dict() == {"a": 2, "b/c": 2}
    assert {images.load(row).size for row in table.itertuples()} == {(5, 5)}


def test_an_unreadable_image_stops_or_is_left_out(made):
    Path("mine/a/0.png").write_bytes(Path("mine/a/0.png").read_bytes()[:-30])
    with pytest.raises(BadInput, match=r"cannot read mine/a/0.png: .*; repair or remove it, or set `unreadable: skip`"):
        write(made)
    with pytest.raises(BadInput, match="the class a has 1 images in mine, but 2 are added"):
        write(made, policy="skip")
    assert len(write(made, policy="skip", ratio=None)) == 3


def test_too_few_are_refused_unless_fewer_are_allowed_and_excluded_classes_need_none(made):
    with pytest.raises(BadInput, match="the class a has 2 images in mine, but 3 are added to it"):
        write(made, ratio=1)
    assert len(write(made, ratio=None)) == 4
    made[1].loc[0, "excluded"] = "why"
    made[1].loc[1, ["train", "wanted"]] = 2
    assert len(write(made, ratio=1)) == 4


def test_a_plan_decodes_a_few_images_only(made):
    table = added.read("mine", "mine", ["a", "b/c"])
    Path(table["path"].iloc[-1]).write_bytes(b"")
    added.check_readable(table, at_most=1)
    with pytest.raises(BadInput, match="it is empty"):
        added.check_readable(table)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("inner", ["", "train"])
def test_what_was_exported_comes_back_without_the_real_images(made, form, inner):
    table, classes = made
    if inner and form == "webdataset":
        pytest.skip("shards lie in no folder of a split")
    extra = write(made).assign(prompt="a thing", seed=5, start_image=["a/0.png", None, None, "b/c/1.png"])
    train = table[table["split"] == "train"]
    info = {"study": "s", "method": "mine", "title": "Mine", "ratio": "1"}
    export(form, train, extra, classes.to_dict("records"), "exported", info)
    back = write(made, Path("exported", inner))
    assert seen(back) == seen(extra)
    if form != "folder":
        assert set(back["prompt"]) == {"a thing"} and set(back["seed"]) == {5}
        assert set(back["start_image"].dropna()) == {"a/0.png", "b/c/1.png"}


def seen(table) -> list[tuple[str, bytes]]:
    """Class and pixels of each image."""
    return sorted(
        (key, images.load(row).tobytes()) for key, row in zip(table["class"], table.itertuples(), strict=True)
    )


# --- scripts --------------------------------------------------------------------------------------------

SCRIPT = """
import pathlib, shutil, sys
source, target = map(pathlib.Path, sys.argv[1:])
print(sorted(str(path.relative_to(source)) for path in source.glob("*/*")))
{body}
"""
COPY = "shutil.copytree(source, target, dirs_exist_ok=True)"


@pytest.mark.middle
def test_a_script_fills_a_folder_from_the_training_images(made, capfd):
    table, classes = made
    train, rows = table[table["split"] == "train"], classes.to_dict("records")
    Path("copy.py").write_text(SCRIPT.format(body=COPY))
    added.run_script("copy.py", train, rows, "filled")
    names = [f"{folder}/real-{i:07d}.png" for folder, first in (("a", 0), ("b_c", 3)) for i in range(first, first + 3)]
    assert capfd.readouterr().out.strip() == str(names)
    assert write(made, "filled", ratio=1)["class"].value_counts().to_dict() == {"a": 3, "b/c": 3}
    for body, sentence in (("sys.exit(3)", "ended with exit code 3"), ("", "wrote nothing into the folder")):
        Path("bad.py").write_text(SCRIPT.format(body=body))
        with pytest.raises(BadInput, match=f"bad.py {sentence}"):
            added.run_script("bad.py", train, rows, "nothing")
        assert not Path("nothing").exists()


@pytest.mark.middle
def test_the_example_makes_three_unlike_copies_of_each_image_and_the_same_again(made):
    table, classes = made
    train = table[table["split"] == "train"]
    script = Path(__file__).parents[3] / "examples" / "affine.py"
    for name in ("one", "two"):
        added.run_script(script, train, classes.to_dict("records"), name)
    one, two = (
        {path.relative_to(name): path.read_bytes() for path in Path(name).glob("*/*")} for name in ("one", "two")
    )
    assert one == two and len(one) == len(set(one.values())) == 3 * len(train)
    assert "torch" not in script.read_text()
