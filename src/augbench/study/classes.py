"""The class table of a study, and how many images of a class each stage deals with."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from augbench.core.files import BadInput


def read(path: str | Path) -> pd.DataFrame:
    """``dataset/classes.csv``: columns class (key), lemmas, hypernyms, definition, train (number of training
    images), excluded (why the class takes no part, else empty) and wanted (images that ratio 1 adds to it: as the file
    says, or as many as it has)."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.assign(wanted=table.get("wanted", table["train"])).astype({"train": int, "wanted": int})


def kept(path: str | Path) -> list[dict]:
    """The classes that take part, in their order, as rows of :func:`read`."""
    return [row for row in read(path).to_dict("records") if not row["excluded"]]


def wanted(train: Mapping[str, int], fill_to: str | int | None) -> dict[str, int]:
    """Class -> images that ratio 1 adds: as many as it has training images, or what it lacks of ``fill_to`` of them
    (``largest``: as many as the largest class has).

    ``train`` : of all classes of the target, also of those that retrieval cannot fill. Raises BadInput where no class
    lacks any.
    """
    if fill_to is None:
        return dict(train)
    full = max(train.values()) if fill_to == "largest" else int(fill_to)
    if all(count >= full for count in train.values()):
        raise BadInput(
            f"each class has {full} training images or more, so that `fill_to: {fill_to}` adds none: leave it out, or "
            f"write a larger number, e.g. `fill_to: {2 * full}`"
        )
    return {key: max(0, full - count) for key, count in train.items()}


def added(count: int, ratio: float) -> int:
    """Images added to a class to which ratio 1 adds ``count``: the rounded share, at least one of them."""
    return max(min(1, count), round(ratio * count))


def generated(count: int, times: float, fixed: int | None) -> int:
    """Images generated for a class: at least ``times`` what ratio 1 adds to it (section 3), or ``fixed`` if more.

    ``times`` is what the configuration says or, where more, the largest augmentation ratio of the method.
    """
    return max(fixed or 0, math.ceil(times * count))


def retrieved(
    table: pd.DataFrame, images_per_class: int | None, ratio: float, fill_to: str | int | None = None
) -> dict[str, int]:
    """Images to retrieve per class: ``images_per_class``, or what ratio 1 adds to it where that is more, times the
    augmentation ratio. ``table``: image table with the column ``split``."""
    training = table[table["split"] == "train"].groupby("class").size()
    counts = wanted({str(key): int(count) for key, count in training.items()}, fill_to)
    return {key: math.ceil(ratio * max(images_per_class or 0, count)) for key, count in counts.items()}


def positions(table: pd.DataFrame) -> dict[str, list[int]]:
    """Class -> positions of its images in an image table."""
    return {str(key): list(places) for key, places in table.reset_index(drop=True).groupby("class").groups.items()}
