"""The target data: reads labelled images as people have them, and splits them as the paper does."""

import csv
import difflib
import functools
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from augbench import digits, images
from augbench.seeds import generator

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
SPLITS = ("train", "validation", "test", "more_real", "unused")
HELD_OUT = {"validation": ("val", "validation"), "test": ("test",)}  # splits, and what people call their folders
SYNSETS = Path("resources/imagenet_synsets.csv")  # WordNet's names of ImageNet's classes
CLUTTER = "257.clutter"  # of Caltech256: no class


# --- layouts: how people have their images --------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where a target's images lie.

    root : what ``image_id`` is relative to; classes : class -> its name as its folder has it, in their order
    train : the images of a class, in any order, of which the training images are drawn, and the validation and test
        images where the target has none of its own; own : splits of its own -> the images of a class. None of these
        looks at a disk before it is asked.
    names : CSV of the classes' names, or None
    """

    root: Path
    classes: dict[str, str]
    train: Callable[[str], Iterable[Path]]
    own: Mapping[str, Callable[[str], Iterable[Path]]] = field(default_factory=dict)
    names: Path | None = None


def _folders(root: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path) -> Iterator[Path]:
    """One by one: who wants the first image alone does not wait until a large folder is read."""
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                yield Path(entry.path)
    for place in inner:
        yield from _files(Path(place))


def _folder(target) -> Layout:
    """``train/CLASS/*.jpg``, and ``val`` and ``test`` likewise where there are such; or ``CLASS/*.jpg`` alone."""
    path = Path(target.path)
    if not (path / "train").is_dir():
        return Layout(path, _classes(path), lambda key: _files(path / key))
    classes, own = _classes(path / "train"), {}
    for split, names in HELD_OUT.items():
        for folder in [path / name for name in names if (path / name).is_dir()][:1]:
            if odd := _classes(folder).keys() - classes.keys():
                raise ValueError(f"{folder / min(odd)} is a class that {path / 'train'} does not have")
            own[split] = functools.partial(_class_files, folder)
    return Layout(path, classes, lambda key: _files(path / "train" / key), own)


def _classes(folder: Path) -> dict[str, str]:
    return {inner.name: inner.name for inner in _folders(folder)}


def _class_files(folder: Path, key: str) -> Iterable[Path]:
    """The images of a class; none where a held-out split has none of it."""
    return _files(folder / key) if (folder / key).is_dir() else ()


def _imagenet(target) -> Layout:
    """ILSVRC2012: ``train/WNID/*.JPEG``, and ``val`` with a folder for each class or, with ``ground_truth``, flat.

    The test images are those of ``val``, as in the paper.
    """
    path = Path(target.path)
    for name in ("train", "val"):
        if not (path / name).is_dir():
            raise ValueError(f"{path} has no folder {name!r}; ImageNet is train/WNID/*.JPEG and val")
    classes = _classes(path / "train")
    if _folders(path / "val"):
        test = lambda key: _files(path / "val" / key)  # noqa: E731
    elif target.ground_truth:
        groups = functools.cache(lambda: _ground_truth(Path(target.ground_truth), sorted(_files(path / "val"))))
        test = lambda key: groups().get(key, [])  # noqa: E731
    else:
        raise ValueError(
            f"{path / 'val'} has no class folders: give `ground_truth`, the devkit's folder or LOC_val_solution.csv"
        )
    return Layout(path, classes, lambda key: _files(path / "train" / key), {"test": test}, SYNSETS)


def _ground_truth(source: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Class -> its validation images, from the devkit's folder or from a CSV with ImageId, PredictionString."""
    if source.suffix == ".csv":
        with open(source, newline="", encoding="utf-8") as handle:
            of = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(handle)}
    else:
        from scipy.io import loadmat

        data = source / "data" if (source / "data").is_dir() else source
        for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
            if not (data / name).is_file():
                raise ValueError(f"{data} has no {name}; `ground_truth` is the folder ILSVRC2012_devkit_t12")
        synsets = loadmat(data / "meta.mat", squeeze_me=True)["synsets"]
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        numbers = (data / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
        if len(numbers) != len(files):
            raise ValueError(f"{data} names {len(numbers)} validation images, there are {len(files)}")
        of = {file.stem: wnids[int(number)] for file, number in zip(files, numbers, strict=True)}
    groups: dict[str, list[Path]] = {}
    for file in files:
        if file.stem not in of:
            raise ValueError(f"{source} does not say what {file} shows")
        groups.setdefault(of[file.stem], []).append(file)
    return groups


def _caltech256(target) -> Layout:
    """``256_ObjectCategories/NNN.name``, or the folder above it, without the clutter; names as provided."""
    path = Path(target.path)
    inner = path / "256_ObjectCategories"
    root = inner if inner.is_dir() else path
    names = [folder.name for folder in _folders(root) if folder.name != CLUTTER]
    classes = {name: re.sub(r"^[0-9]+\.|-101$", "", name) for name in names}
    return Layout(root, classes, lambda key: _files(root / key))


def _list(target) -> Layout:
    """A CSV or Parquet file with path (relative to it), class and perhaps split: train, validation or test."""
    source = Path(target.path)
    table = pd.read_parquet(source) if source.suffix == ".parquet" else pd.read_csv(source, dtype=str)
    if missing := {"path", "class"} - set(table):
        raise ValueError(f"{source} needs the columns path,class; {', '.join(sorted(missing))} is missing")
    split = table["split"] if "split" in table else pd.Series("train", index=table.index)
    if odd := set(split) - {"train", *HELD_OUT}:
        raise ValueError(f"{source}: a split is train, validation or test, not {sorted(map(str, odd))[0]!r}")
    table = table.assign(split=split, file=[source.parent / str(path) for path in table["path"]])
    groups = {
        (part, str(key)): list(rows["file"]) for (part, key), rows in table.groupby(["split", "class"], sort=False)
    }
    classes = {key: key for key in sorted({key for _, key in groups})}

    def of(part: str) -> Callable[[str], list[Path]]:
        return lambda key: groups.get((part, key), [])

    return Layout(source.parent, classes, of("train"), {part: of(part) for part in HELD_OUT if part in set(split)})


READERS = {"digits": _folder, "folder": _folder, "imagenet": _imagenet, "caltech256": _caltech256, "list": _list}


def layout(target) -> Layout:
    """Where the images of a target lie. Raises ValueError with one sentence when they do not lie as its reader says."""
    path = Path(target.path)
    if target.reader == "list" and not path.is_file():
        raise ValueError(f"there is no file {path}; it should have the columns path,class")
    if target.reader != "list" and not path.is_dir():
        raise ValueError(f"there is no folder {path}; give the folder that holds train/CLASS/*.jpg, or CLASS/*.jpg")
    return READERS[target.reader](target)


def folder_table(folder: str | Path) -> pd.DataFrame:
    """All images below a folder as an image table, sorted; the class is that of its sub-folder, or empty."""
    files = sorted(_files(Path(folder)))
    names = [os.path.relpath(file, folder) for file in files]
    return images.table(
        {"image_id": name, "class": name.rpartition(os.sep)[0], "path": str(file)}
        for name, file in zip(names, files, strict=True)
    )


# --- classes --------------------------------------------------------------------------------------------


def class_keys(target) -> list[str]:
    """The classes of a target in their order, known before any work starts."""
    return list(digits.DIGITS) if target.reader == "digits" else list(layout(target).classes)


def check(target) -> None:
    """Raise ValueError with one sentence when there can be no study of the target."""
    found = layout(target)
    if len(found.classes) < 2:
        raise ValueError(f"{target.path} has {len(found.classes)} classes; at least two are needed")
    for key in found.classes:
        if next(iter(found.train(key)), None) is None:
            raise ValueError(f"the class {key} of {target.path} holds no image; remove it or fill it")
    names = {}
    for key, row in class_table(target).set_index("class").iterrows():
        same = names.setdefault(row["lemmas"].casefold(), key)
        if same != key and found.names is None:  # two of ImageNet's classes are both called crane
            raise ValueError(
                f"the classes {same} and {key} have the same name {row['lemmas']!r}; tell them apart by a CSV "
                "with columns class,lemmas and the key `classes`"
            )


def class_table(target) -> pd.DataFrame:
    """Columns class, lemmas (comma separated), hypernyms, definition; one row per class, in class order.

    Each comes from the CSV ``target.classes``; where that is silent, from the layout's (WordNet's for ImageNet), and a
    name at last from the folder's. Raises ValueError for a CSV that names a class that there is not.
    """
    found = layout(target)
    given = _named(found.names) if found.names else {}
    if target.classes:
        for key, row in _named(target.classes).items():
            if key not in found.classes:
                near = difflib.get_close_matches(key, found.classes, 1)
                meant = f", did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{target.classes} names the class {key!r}, which {target.path} does not have{meant}")
            given[key] = given.get(key, {}) | row
    rows = []
    for key, name in found.classes.items():
        row = given.get(key, {})
        name = name.replace("_", " ").replace("-", " ").strip()
        rows.append((key, row.get("lemmas") or name, row.get("hypernyms") or "", row.get("definition") or ""))
    return pd.DataFrame(rows, columns=["class", "lemmas", "hypernyms", "definition"])


def _named(source: str | Path) -> dict[str, dict[str, str]]:
    """Class -> lemmas, hypernyms and definition as a CSV has them, without empty cells."""
    if not Path(source).is_file():
        raise ValueError(f"there is no file {source}; it should have the columns class,lemmas")
    with open(source, newline="", encoding="utf-8-sig") as handle:  # spreadsheets begin a file with a mark
        reader = csv.DictReader(handle)
        if not {"class", "lemmas"} <= set(reader.fieldnames or []):
            raise ValueError(f"{source} needs the columns class,lemmas; it has {reader.fieldnames}")
        rows = {row["class"]: row | {"hypernyms": row.get("hypernyms") or row.get("hypernym")} for row in reader}
    return {key: {name: cell.strip() for name, cell in row.items() if name and cell} for key, row in rows.items()}


def split(target, dataset, seed: int) -> pd.DataFrame:
    """All images of the target as an image table with the further column ``split``.

    Within each class, shares of the training images are drawn at random, which retains class imbalance
    (paper, section 3): ``validation``, a disjoint ``train`` and a further disjoint set of the size of the
    training set, ``more_real``, as far as images are left; the rest is ``unused``. Validation images are drawn
    first, so they are the same for 10% of ImageNet and for all of it. Sizes are those of :func:`sizes`.
    Of a validation or test split of the target's own, all images are taken, and none are drawn for it.

    Raises ValueError naming an unreadable image (``unreadable: stop``) or a class left without images.
    """
    found = layout(target)
    rows, unreadable = [], []
    for key in found.classes:
        files = _readable(sorted(found.train(key)), target.unreadable, unreadable)
        rng = generator(seed, "split", key)
        order = [files[i] for i in rng.permutation(len(files))]
        start = 0
        for name, count in sizes(len(files), dataset, found.own).items():
            part = order[start : start + count]
            start += count
            share = getattr(dataset, name, 0)
            if share > 0 and not part:
                raise ValueError(f"the class {key} has {len(files)} images, too few for the split {name!r}")
            rows += [(name, key, file) for file in sorted(part)]
        rows += [("unused", key, file) for file in sorted(order[start:])]
        for name, files_of in found.own.items():
            own = _readable(sorted(files_of(key)), target.unreadable, unreadable)
            rows += [(name, key, file) for file in own]
    table = images.table(
        {"image_id": os.path.relpath(file, found.root), "class": key, "path": str(file)} for _, key, file in rows
    )
    table["split"] = [name for name, _, _ in rows]
    for file in unreadable:
        print(f"left out: {file}", flush=True)
    return table.sort_values("image_id", ignore_index=True)


def sizes(count: int, dataset, own: Collection[str] = ()) -> dict[str, int]:
    """Images of the splits of a class of ``count`` images, in the order in which they are drawn; none for those that
    the target has of its ``own``.

    A share is rounded up: so the 732 to 1,300 images of ImageNet's classes give the paper's 74 to 130. Where all
    images are shared out and rounding wants more than there are, validation and test give in turn, so that what
    training leaves makes two equal parts (Caltech256); without a test share training gives, so that it is all but
    the validation split (full ImageNet).
    """
    shares = {name: getattr(dataset, name) for name in ("validation", "train", "test") if name not in own}
    wanted = {name: math.ceil(round(share * count, 9)) for name, share in shares.items()}
    while (excess := sum(wanted.values()) - count) > 0:
        if "test" in own:
            wanted["train"] -= excess
            break
        largest = max([name for name in ("test", "validation") if name in wanted], key=wanted.get)
        if not wanted[largest]:
            break
        wanted[largest] -= 1
    return wanted | {"more_real": max(0, min(wanted["train"], count - sum(wanted.values())))}


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
