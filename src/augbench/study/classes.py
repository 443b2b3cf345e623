"""The class table of a study, and how many images of a class each stage deals with."""

import math
from pathlib import Path

import pandas as pd


def read(path: str | Path) -> pd.DataFrame:
    """``dataset/classes.csv``: columns class (key), lemmas, hypernyms, definition, train (number of training
    images) and excluded (why the class takes no part, else empty)."""
    return pd.read_csv(path, dtype=str, keep_default_na=False).astype({"train": int})


def kept(path: str | Path) -> list[dict]:
    """The classes that take part, in their order, as rows of :func:`read`."""
    return [row for row in read(path).to_dict("records") if not row["excluded"]]


def added(train: int, ratio: float) -> int:
    """Images added to a class of ``train`` training images: the rounded share, at least one."""
    return max(1, round(ratio * train))


def generated(train: int, times: float, fixed: int | None) -> int:
    """Images generated for a class: at least ``times`` its training images (section 3), or ``fixed`` if more.

    ``times`` is what the configuration says or, where more, the largest augmentation ratio of the method.
    """
    return max(fixed or 0, math.ceil(times * train))


def retrieved(table: pd.DataFrame, images_per_class: int | None, ratio: float) -> dict[str, int]:
    """Images to retrieve per class: ``images_per_class``, or as many as it has training images where that is
    more, times the augmentation ratio. ``table``: image table with the column ``split``."""
    training = table[table["split"] == "train"].groupby("class").size()
    return {str(key): math.ceil(ratio * max(images_per_class or 0, count)) for key, count in training.items()}


def positions(table: pd.DataFrame) -> dict[str, list[int]]:
    """Class -> positions of its images in an image table."""
    return {str(key): list(places) for key, places in table.reset_index(drop=True).groupby("class").groups.items()}
