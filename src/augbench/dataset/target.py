"""The target data: reads labelled images as people have them, and splits them as the paper does."""

import difflib
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import files, list_files
from augbench.core.files import BadInput
from augbench.core.seeds import generator
from augbench.dataset.folder_layouts import Layout, layout, same_name
from augbench.digits import data
from augbench.images import folders

SPLITS = ("train", "validation", "test", "more_real", "unused")
LOOKED_AT = 10_000  # files of a list of which a plan asks whether they are there
LISTED = 100_000  # images of a target that a plan lists


def folder_table(folder: str | Path, unreadable: str = "stop") -> pd.DataFrame:
    """All images below a folder as an image table, sorted; the class is that of its sub-folder, or empty.

    With ``unreadable`` ``skip`` those that cannot be read are left out; else who reads them says which.
    """
    left_out: Counter = Counter()
    found = sorted(folders.images(folder, left_out))
    if unreadable == "skip":
        found = _readable(found, unreadable, messages := [])
        for message in messages:
            print(f"left out: {message}", flush=True)
    elif odd := next((file for file in found if not folders.is_text(file)), None):
        raise BadInput(f"the name of {files.printable(odd)} is not UTF-8; rename it, or set `unreadable: skip`")
    if left_out:
        print(f"not taken: {folders.told(left_out)}", flush=True)
    names = [os.path.relpath(file, folder) for file in found]
    return images.table(
        {"image_id": name, "class": name.rpartition(os.sep)[0], "path": str(file)}
        for name, file in zip(names, found, strict=True)
    )


# --- classes --------------------------------------------------------------------------------------------


def class_keys(target) -> list[str]:
    """The classes of a target in their order, known before any work starts."""
    return list(data.DIGITS) if target.reader == "digits" else list(layout(target).classes)


def check(target) -> None:
    """Raise ValueError with one sentence when there can be no study of the target."""
    found = layout(target)
    if len(found.classes) < 2:
        advice = (
            "; its images lie in no class folders: put them into CLASS/, or write a list with the columns path,class"
        )
        flat = "images beside the class folders" in found.left_out
        raise BadInput(
            f"{target.path} has {len(found.classes)} classes; at least two are needed{advice if flat else ''}"
        )
    for key in found.classes:
        found.left_out.clear()
        if next(iter(found.train(key)), None) is None:
            instead = f" but {told}" if (told := folders.told(found.left_out)) else ""
            raise BadInput(f"the class {key} of {target.path} holds no image{instead}; remove it or fill it")
    for part, files_of in found.own.items():
        if all(next(iter(files_of(key)), None) is None for key in found.classes):
            raise BadInput(f"the {part} split of {target.path} holds no image; remove it, and augbench splits one off")
    if target.reader == "list":
        _check_paths(found, target)
    names = {}
    for key, row in class_table(target).set_index("class").iterrows():
        same = names.setdefault(same_name(row["lemmas"]).casefold(), key)
        if same != key and found.names is None:  # two of ImageNet's classes are both called crane
            alike = ", in another Unicode form" if same_name(key) == same_name(same) else ""
            raise BadInput(
                f"the classes {same} and {key} have the same name {row['lemmas']!r}{alike}; join them, or tell them "
                "apart by a CSV with columns class,lemmas and the key `classes`"
            )


def _check_paths(found: Layout, target) -> None:
    """Raise BadInput when none of a list's first files is there, or, where it is short, one is not."""
    parts = [found.train, *found.own.values()]
    every = (path for part in parts for key in found.classes for path in part(key))
    paths = list(itertools.islice(every, LOOKED_AT))
    missing = [path for path in paths if not path.is_file()]
    if missing and re.match("[a-z]+://?", os.path.relpath(missing[0], found.root)):
        raise BadInput(f"{target.path} names addresses, not files; download the images first")
    if len(missing) == len(paths):
        raise BadInput(
            f"there is no file {files.printable(missing[0])}, nor any other of {target.path}; its paths are relative "
            f"to {found.root}"
        )
    if missing and target.unreadable == "stop":
        raise BadInput(
            f"there is no file {files.printable(missing[0])}, which {target.path} names ({len(missing)} of "
            f"{len(paths)} files are missing); take these rows away, or set `unreadable: skip`"
        )


def left_out(target) -> Counter:
    """What of the first 100,000 images of a target and what lies among them is not taken, by kind."""
    found = layout(target)
    every = (file for part in (found.train, *found.own.values()) for key in found.classes for file in part(key))
    for _ in itertools.islice(every, LISTED):
        pass
    return found.left_out


def class_table(target) -> pd.DataFrame:
    """Columns class, lemmas (comma separated), hypernyms, definition; one row per class, in class order.

    Each comes from the CSV ``target.classes``; where that is silent, from the layout's (WordNet's for ImageNet), and a
    name at last from the folder's. Raises BadInput for a CSV that names a class that there is not.
    """
    found = layout(target)
    info = _named(found.names) if found.names else {}
    if target.classes:
        keys = {same_name(key): key for key in found.classes}
        for name, row in _named(target.classes).items():
            key = name if name in found.classes else keys.get(same_name(name))
            if key is None:
                near = difflib.get_close_matches(name, found.classes, 1)
                meant = f", did you mean {near[0]!r}?" if near else ""
                raise BadInput(f"{target.classes} names the class {name!r}, which {target.path} does not have{meant}")
            info[key] = info.get(key, {}) | row
    rows = []
    for key, name in found.classes.items():
        row = info.get(key, {})
        name = name.replace("_", " ").replace("-", " ").strip()
        rows.append((key, row.get("lemmas") or name, row.get("hypernyms") or "", row.get("definition") or ""))
    return pd.DataFrame(rows, columns=["class", "lemmas", "hypernyms", "definition"])


NAMES = {  # columns of a table of names, and what else people call them
    "class": ["classname", "label", "folder", "wnid", "category"],
    "lemmas": ["lemma", "name", "names", "title"],
    "hypernyms": ["hypernym"],
    "definition": ["gloss", "description"],
}


def _named(source: str | Path) -> dict[str, dict[str, str]]:
    """Class -> lemmas, hypernyms and definition as a CSV has them, without empty cells."""
    info: dict[str, dict[str, str]] = {}
    for row in list_files.read(source, NAMES, ["class", "lemmas"]).to_pylist():
        if not (key := row.pop("class")):
            continue
        cells = {name: cell for name, cell in row.items() if cell}
        if info.setdefault(key, cells) != cells:
            raise BadInput(f"{source} names the class {key!r} twice; keep one of these rows")
    return info


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
        readable = _readable(sorted(found.train(key)), target.unreadable, unreadable)
        rng = generator(seed, "split", key)
        order = [readable[i] for i in rng.permutation(len(readable))]
        start = 0
        for name, count in sizes(len(readable), dataset, found.own).items():
            part = order[start : start + count]
            start += count
            share = getattr(dataset, name, 0)
            if share > 0 and not part:
                raise BadInput(f"the class {key} has {len(readable)} images, too few for the split {name!r}")
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
    if found.left_out:
        print(f"not taken: {folders.told(found.left_out)}", flush=True)
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


def _readable(found: Sequence[Path], policy: str, unreadable: list[str]) -> list[Path]:
    good = []
    for file in found:
        try:
            if not folders.is_text(file):
                raise BadInput(f"the name of {files.printable(file)} is not UTF-8")
            images.decode(files.read_bytes(file), str(file))
            good.append(file)
        except ValueError as error:
            if policy == "stop":
                raise BadInput(f"{error}; repair or remove it, or set `unreadable: skip`") from None
            unreadable.append(str(error))
    return good
