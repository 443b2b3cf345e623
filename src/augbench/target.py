"""The target data: reads labelled images as people have them, and splits them as the paper does."""

import csv
import math
import os
from pathlib import Path

import pandas as pd

from augbench import digits, images
from augbench.seeds import generator

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SPLITS = ("train", "validation", "test", "more_real", "unused")


def _root(target) -> Path:
    """The folder whose subfolders are the training classes."""
    path = Path(target.path)
    return path / "train" if (path / "train").is_dir() else path


def _folders(root: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(
        Path(base, name)
        for base, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in EXTENSIONS
    )


def class_keys(target) -> list[str]:
    """The classes of a target in their order, known before any work starts."""
    if target.reader == "digits":
        return list(digits.DIGITS)
    return [folder.name for folder in _folders(_root(target))]


def check_folder(target) -> None:
    """Raise ValueError with one sentence when the folder cannot be a target."""
    path = Path(target.path)
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}; give the folder that holds train/CLASS/*.jpg, or CLASS/*.jpg")
    folders = _folders(_root(target))
    if len(folders) < 2:
        raise ValueError(f"{_root(target)} has {len(folders)} class folders; at least two are needed")
    for folder in folders:
        if not any(
            os.path.splitext(name)[1].lower() in EXTENSIONS for _, _, names in os.walk(folder) for name in names
        ):
            raise ValueError(f"the class folder {folder} holds no image; remove it or fill it")
    names = {}
    for key, row in class_table(target).set_index("class").iterrows():
        same = names.setdefault(row["lemmas"].casefold(), key)
        if same != key:
            raise ValueError(
                f"the classes {same} and {key} have the same name {row['lemmas']!r}; tell them apart by a CSV "
                "with columns class,lemmas and the key `classes`"
            )
    if (path / "test").is_dir():
        for folder in _folders(path / "test"):
            if folder.name not in {f.name for f in folders}:
                raise ValueError(f"{folder} is a class that {_root(target)} does not have")


def class_table(target, default: str | None = None) -> pd.DataFrame:
    """Columns class, lemmas (comma separated), hypernyms, definition; one row per class, in class order.

    Names come from the CSV ``target.classes`` (or ``default``); where it is silent, from the folder name.
    """
    given = {}
    source = target.classes or default
    if source:
        if not Path(source).is_file():
            raise ValueError(f"there is no file {source}; it should have the columns class,lemmas")
        with open(source, newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            if not {"class", "lemmas"} <= set(reader.fieldnames or []):
                raise ValueError(f"{source} needs the columns class,lemmas; it has {reader.fieldnames}")
            given = {row["class"]: row for row in reader}
    rows = []
    for key in class_keys(target):
        row = given.get(key, {})
        name = key.replace("_", " ").replace("-", " ").strip()
        rows.append((key, row.get("lemmas") or name, row.get("hypernyms") or "", row.get("definition") or ""))
    return pd.DataFrame(rows, columns=["class", "lemmas", "hypernyms", "definition"])


def split(target, dataset, seed: int) -> pd.DataFrame:
    """All images of the target as an image table with the further column ``split``.

    Within each class, shares of the training images are drawn at random, which retains class imbalance
    (paper, section 3): ``train``, a disjoint ``validation`` and a further disjoint set of the size of the
    training set, ``more_real``, as far as images are left; the rest is ``unused``. A share of n images is
    rounded up: so the 732 to 1,300 images of ImageNet's classes give the paper's 74 to 130.
    Test images are those of the folder ``test``, or a share where there is none.

    Raises ValueError naming an unreadable image (``unreadable: stop``) or a class left without images.
    """
    root, path = _root(target), Path(target.path)
    has_test = (path / "test").is_dir()
    rows, unreadable = [], []
    for key in class_keys(target):
        files = _readable(_files(root / key), target.unreadable, unreadable)
        rng = generator(seed, "split", key)
        order = [files[i] for i in rng.permutation(len(files))]
        shares = [("train", dataset.train), ("validation", dataset.validation)]
        if not has_test:
            shares.append(("test", dataset.test))
        shares.append(("more_real", dataset.train))
        start = 0
        for name, share in shares:
            count = math.ceil(round(share * len(files), 9))
            part = order[start : start + count]
            start += count
            if name != "more_real" and share > 0 and not part:
                raise ValueError(f"the class {key} has {len(files)} images, too few for the split {name!r}")
            rows += [(name, key, file) for file in sorted(part)]
        rows += [("unused", key, file) for file in sorted(order[start:])]
        if has_test:
            test = _readable(_files(path / "test" / key), target.unreadable, unreadable)
            rows += [("test", key, file) for file in test]
    table = images.table(
        {"image_id": file.relative_to(path).as_posix(), "class": key, "path": str(file)} for _, key, file in rows
    )
    table["split"] = [name for name, _, _ in rows]
    for file in unreadable:
        print(f"left out: {file}", flush=True)
    return table.sort_values("image_id", ignore_index=True)


def _readable(files: list[Path], policy: str, unreadable: list[str]) -> list[Path]:
    good = []
    for file in files:
        try:
            images.decode(file.read_bytes(), str(file))
            good.append(file)
        except ValueError as error:
            if policy == "stop":
                raise ValueError(f"{error}; repair or remove it, or set `unreadable: skip`") from None
            unreadable.append(str(error))
    return good
