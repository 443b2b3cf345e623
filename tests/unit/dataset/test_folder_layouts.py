"""Folders as people have them: layouts are told apart by one rule or asked about, and nothing is taken that is no
image of a class."""

import os
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from augbench.core.files import BadInput
from augbench.dataset import checks, references, splits
from augbench.dataset.class_table import class_table
from augbench.images import folders
from augbench.jobs import new_study
from augbench.study.config import Dataset, Target
from augbench.study.readers.layout import SPLIT_NAMES

FAMILY = settings(derandomize=True, max_examples=60, deadline=None)


def image(path, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        Image.new("RGB", (2, 2)).save(path, kind)
    return path


def fill(root, *places, count=6):
    """``count`` images in each of the folders ``places``."""
    for place in places:
        for number in range(count):
            image(root / place / f"{number}.png")
    return Target(reader="folder", path=str(root))


def classes(target_):
    return list(target_.reader.layout(target_).classes)


# --- splits and classes ---------------------------------------------------------------------------------

CASES = st.sampled_from([str.lower, str.upper, str.title, str.capitalize])
TRAINS = ["train", "training", "trn", "train_set", "trainset", "Train Images", "training-data", "train2017"]
VALIDATIONS = ["val", "valid", "validation", "dev", "val_set", "valid images", "validation-split"]
TESTS = ["test", "testing", "tests", "eval", "evaluation", "test1", "testset", "test images"]


@FAMILY
@given(*(st.tuples(st.sampled_from(names), CASES) for names in (TRAINS, VALIDATIONS, TESTS)), st.booleans())
def test_folders_called_as_splits_are_splits_in_any_case(tmp_path_factory, train, validation, test, with_validation):
    names = {part: case(name) for part, (name, case) in zip(SPLIT_NAMES, (train, validation, test), strict=True)}
    if not with_validation:
        del names["validation"]
    root = tmp_path_factory.mktemp("splits")
    study = fill(root, *(f"{name}/{key}" for name in names.values() for key in ("cat", "dog")), count=1)
    checks.check(study)
    layout = study.reader.layout(study)
    assert list(layout.classes) == ["cat", "dog"]
    assert set(layout.own) == names.keys() - {"train"}
    assert {os.path.relpath(file, root) for file in layout.own["test"]("cat")} == {f"{names['test']}/cat/0.png"}


@FAMILY
@given(
    st.sampled_from([*TRAINS, *VALIDATIONS, *TESTS]),
    CASES,
    st.sets(st.sampled_from(["bus", "car", "truck", "tram", "bike"]), min_size=2),
    st.sampled_from(["", "engine"]),
)
def test_a_class_called_as_a_split_among_others_is_a_class(tmp_path_factory, name, case, others, inner):
    root = tmp_path_factory.mktemp("classes")
    name = case(name)
    study = fill(root, f"{name}/{inner}", *others, count=1)
    checks.check(study)
    assert classes(study) == sorted({name, *others})


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        (["train", "truck"], r"folders named like splits \(train\) and others \(truck\): write `folders: splits`"),
        (["train/a", "train/b", "extra"], "write `folders: splits` into `target` to use the splits alone"),
        (["train/a", "train/b", "test/a", "test/b", "unlabelled"], r"splits \(test, train\) and others \(unlabelled\)"),
        (["train/a", "train/b", "val/a", "Validation/b"], "would both be the validation split"),
        (["Train/a", "training/b"], "would both be the train split"),
        (["val/a", "val/b", "test/a"], "has test and val but no folder called train"),
        (["valid", "invalid"], "named like splits"),
        (["train/a", "train/b", "test"], "test cannot be used: its images lie in no class folders"),
        (["train/a", "train/b", "val/c"], r"val/c is a class that .*train does not have"),
        (["train/a", "train/b", "val/A"], r"val/A is a class that .* does not have; is it 'a'\?"),
        (["train", "test"], "has no class folders|cannot be used|has 0 classes"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], r"hold splits \(cat/test\); put the classes into the"),
        (["data/cat", "data/dog"], r"write `path: .*/data`"),
        (["data/birds/train/a", "data/birds/train/b", "data/birds/test/a"], r"write `path: .*/data/birds`"),
        (["part1/a", "part1/b", "part2/a", "part2/b"], "hold the same folders .* as splits do"),
        (["seg_train/a", "seg_train/b", "seg_pred/a", "seg_pred/b"], "call them train, val and test"),
        (["."], "has 0 classes; at least two are needed; its images lie in no class folders"),
        (["train"], "has 0 classes; at least two are needed; its images lie in no class folders"),
    ],
)
def test_what_names_do_not_say_is_asked(tmp_path, places, sentence):
    study = fill(tmp_path, *places)
    with pytest.raises(BadInput, match=sentence) as error:
        checks.check(study)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=sentence):
        new_study.examine(str(tmp_path))


def test_the_answer_to_a_question_is_a_key(tmp_path):
    study = fill(tmp_path, "train/a", "train/b", "extra/c", count=10)
    with pytest.raises(BadInput, match="`folders: splits`"):
        checks.check(study)
    splits, as_classes = (study.model_copy(update={"folders": answer}) for answer in ("splits", "classes"))
    assert (classes(splits), classes(as_classes)) == (["a", "b"], ["extra", "train"])
    assert checks.left_out(splits) == {"folder extra": 1}
    assert "folders: splits" in new_study.text("x", new_study.examine(str(tmp_path), "splits"))


def test_folders_without_images_are_neither_split_nor_class(tmp_path):
    study = fill(tmp_path, "train/a", "train/b", "test/a")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text("<a/>")
    checks.check(study)
    assert classes(study) == ["a", "b"]
    assert checks.left_out(study) == {"folder annotations": 1}


def test_class_folders_that_differ_in_unicode_form_or_case(tmp_path):
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    study = fill(tmp_path / "split", f"train/{forms[0]}", "train/tea", f"val/{forms[1]}")
    checks.check(study)
    assert [file.parent.name for file in study.reader.layout(study).own["validation"](forms[0])] == [forms[1]] * 6
    names = tmp_path / "names.csv"
    names.write_text(f"class,lemmas\n{forms[1]},coffee house\n")
    table = class_table(study.model_copy(update={"classes": str(names)})).set_index("class")
    assert table.loc[forms[0], "lemmas"] == "coffee house"
    with pytest.raises(BadInput, match="have the same name .*, in another Unicode form; join them"):
        checks.check(fill(tmp_path / "twins", *forms))
    with pytest.raises(BadInput, match="the classes Cat and cat have the same name"):
        checks.check(fill(tmp_path / "cases", "Cat", "cat"))
    with pytest.raises(BadInput, match="are one class, in two Unicode forms"):
        checks.check(fill(tmp_path / "both", f"train/{forms[0]}", "train/tea", *(f"val/{form}" for form in forms)))


@pytest.mark.parametrize("keys", [("robin", "tit"), ("n01440764", "n01443537")])
def test_a_new_study_calls_imagenet_what_has_its_class_folders(tmp_path, keys):
    fill(tmp_path, *(f"{part}/{key}" for part in ("train", "val") for key in keys))
    found = new_study.examine(str(tmp_path))
    assert found.target.reader.name == ("imagenet" if keys[0].startswith("n0") else "folder")
    assert found.own == ({"test"} if keys[0].startswith("n0") else {"validation"})


# --- what is an image -----------------------------------------------------------------------------------

JUNK = [
    "._0.jpg", ".DS_Store", ".hidden.png", "Thumbs.db", "THUMBS.DB", "desktop.ini", "Icon\r", "~$0.png", "0.png~",
    ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/._0.png", "@eaDir/0.png/thumb.jpg", ".thumbnails/0.png",
    "$RECYCLE.BIN/0.png", "System Volume Information/0.png", "thumbnails/0.png", "lost+found/0.png", ".git/0.png",
]  # fmt: skip
OTHERS = {"0.txt": ".txt", "0.json": ".json", "a.HEIC.xmp": ".xmp", "movie.mp4": ".mp4", "README": "without extension",
          "0.png.part": ".part", "sketch.svg": ".svg", "0.raw.verylongextension": "of other kinds"}  # fmt: skip


@FAMILY
@given(st.sets(st.sampled_from([*JUNK, *OTHERS]), min_size=1), st.sampled_from(["", "deep", "deep/er"]))
def test_what_systems_put_there_and_other_files_are_never_images(tmp_path_factory, names, depth):
    root = tmp_path_factory.mktemp("junk")
    image(root / "0.png")
    for name in names:
        path = root / depth / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in OTHERS:
            path.write_text("text")
        else:
            shutil.copyfile(root / "0.png", path)
    left_out = Counter()
    assert list(folders.images(root, left_out)) == [root / "0.png"]
    kinds = Counter(OTHERS[name] for name in names if name in OTHERS)
    assert {kind: count for kind, count in left_out.items() if "hidden" not in kind} == kinds
    assert sum(left_out.values()) >= len({name.split("/")[0] for name in names})
    assert "1 .txt" in folders.left_out_message(left_out) or "0.txt" not in names


def test_every_extension_that_pillow_decodes_is_one_of_an_image():
    Image.init()
    no_pictures = {  # programs, documents and what Pillow only writes or knows by name
        "EPS", "WMF", "PDF", "MPEG", "HDF5", "BUFR", "GRIB", "PALM", "IPTC",
    }  # fmt: skip
    known = {extension for extension, kind in Image.registered_extensions().items() if kind not in no_pictures}
    assert known - folders.HEIF <= folders.EXTENSIONS


def test_extensions_are_known_in_any_case_and_files_without_one_by_their_content(tmp_path):
    names = ["a.JPG", "b.jfif", "c.Jpe", "d.AVIF", "e.ppm", "f.jp2", "g.webp", "h", "i.0001"]
    for name in names:
        kind = {"d.AVIF": "AVIF", "e.ppm": "PPM", "f.jp2": "JPEG2000", "g.webp": "WEBP"}.get(name, "JPEG")
        image(tmp_path / name, kind)
    (tmp_path / "j").write_text("P1 is no picture of mine")
    (tmp_path / "k.0002").write_bytes(b"")
    left_out = Counter()
    assert sorted(file.name for file in folders.images(tmp_path, left_out)) == names
    assert left_out == {"without extension": 2}


@pytest.mark.parametrize("installed", [True, False])
def test_heif_is_taken_where_it_can_be_read_and_told_where_not(tmp_path, monkeypatch, installed):
    monkeypatch.setattr(folders, "reads_heif", lambda: installed)
    for number in range(3):
        (tmp_path / f"{number}.HEIC").write_bytes(b"")
    left_out = Counter()
    assert len(list(folders.images(tmp_path, left_out))) == 3 * installed
    assert folders.left_out_message(left_out) == (
        "" if installed else "3 .heic (the extra `heif` reads them: pip install pillow-heif)"
    )


def test_a_class_without_an_image_says_what_it_holds(tmp_path):
    study = fill(tmp_path, "cat", "dog")
    (tmp_path / "owl").mkdir()
    for number in range(4):
        (tmp_path / "owl" / f"{number}.dng").write_bytes(b"raw")
    with pytest.raises(BadInput, match="the class owl of .* holds no image but 4 .dng; remove it or fill it"):
        checks.check(study)


# --- links ----------------------------------------------------------------------------------------------


def test_linked_folders_are_followed_and_each_is_read_once(tmp_path):
    fill(tmp_path / "elsewhere", "more", count=3)
    fill(tmp_path / "pool", "own", count=2)
    (tmp_path / "pool" / "linked").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "pool" / "again").symlink_to(tmp_path / "pool" / "own")
    (tmp_path / "pool" / "own" / "itself").symlink_to(tmp_path / "pool")
    (tmp_path / "pool" / "up").symlink_to(tmp_path)
    left_out = Counter()
    names = sorted(os.path.relpath(file, tmp_path / "pool") for file in folders.images(tmp_path / "pool", left_out))
    assert names == ["linked/0.png", "linked/1.png", "linked/2.png", "own/0.png", "own/1.png"]
    assert left_out == {"links to folders that are read already": 1, "links to a folder above": 2}


def test_links_in_circles_pipes_and_links_that_lead_nowhere(tmp_path):
    image(tmp_path / "0.png")
    (tmp_path / "linked.png").symlink_to(tmp_path / "0.png")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    left_out = Counter()
    assert sorted(file.name for file in folders.images(tmp_path, left_out)) == ["0.png", "gone.png", "linked.png"]
    assert left_out == {"links that lead nowhere": 3, "pipes and devices": 1}


def test_class_folders_may_be_links_but_not_to_each_other_or_to_a_folder_above(tmp_path):
    fill(tmp_path / "all", "cats", "dogs")
    root = tmp_path / "data"
    root.mkdir()
    for name in ("cats", "dogs"):
        (root / name).symlink_to(tmp_path / "all" / name)
    (root / "loop").symlink_to(root)
    study = Target(reader="folder", path=str(root))
    checks.check(study)
    assert classes(study) == ["cats", "dogs"]
    (root / "kitties").symlink_to(root / "cats")
    with pytest.raises(BadInput, match="cats and .*kitties are the same folder; remove the link"):
        checks.check(study)


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_an_image_that_is_not_there_or_has_no_name_is_unreadable(tmp_path, policy, capsys):
    study = fill(tmp_path, "cat", "dog").model_copy(update={"unreadable": policy})
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    shutil.copyfile(tmp_path / "cat" / "0.png", os.fsencode(tmp_path / "cat") + b"/caf\xe9.png")
    dataset = Dataset(train=0.4, validation=0.3, test=0.3)
    if policy == "skip":
        assert len(splits.split(study, dataset, 1)) == 12
        output = capsys.readouterr().out
        assert "gone.png: it is a link that leads nowhere" in output
        assert r"left out: the name of" in output and r"caf\xe9.png is not UTF-8" in output
        assert len(references.folder_table(tmp_path, "skip")) == 12
    else:
        with pytest.raises(
            BadInput, match=r"is not UTF-8; repair or remove it|it is a link that leads nowhere; repair"
        ):
            splits.split(study, dataset, 1)
        with pytest.raises(BadInput, match=r"caf\\xe9.png is not UTF-8; rename it"):
            references.folder_table(tmp_path)


def test_a_class_folder_whose_name_is_no_text_is_named(tmp_path):
    study = fill(tmp_path, "cat", "dog")
    (tmp_path / "dog").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with pytest.raises(BadInput, match=r"the name of the folder .*caf\\xe9 is not UTF-8; rename it"):
        checks.check(study)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadInput, match=f"cannot list {tmp_path}: Permission denied"):
        list(folders.images(tmp_path))


def test_what_is_ignored_stands_in_a_new_studys_file(tmp_path):
    fill(tmp_path, "cat", "dog", count=10)
    (tmp_path / "cat" / "0.txt").write_text("a caption")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"")
    text = new_study.write(str(tmp_path), "pets", tmp_path / "config").read_text()
    assert "# Ignored: 1 .txt, 1 hidden or system files." in text


def test_listing_is_lazy_and_a_plan_lists_so_many_and_no_more(tmp_path, monkeypatch):
    study = fill(tmp_path, "cat", "dog")
    for number in range(50):
        Path(tmp_path / "cat" / f"{number}.txt").write_text("")
    monkeypatch.setattr(checks, "LISTED", 0)
    assert not checks.left_out(study)
    monkeypatch.setattr(checks, "LISTED", 100)
    assert checks.left_out(study) == {".txt": 50}
