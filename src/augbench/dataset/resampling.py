"""Draws, from all images of a method, the sets that are added to the training set, one per repeated run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from augbench import images
from augbench.core.seeds import generator
from augbench.study.classes import added as added_count

ORDERS = ("random", "listed", "all", "available")


def write_sets(
    paths: Sequence[str | Path],
    sources: Sequence[str | Path],
    counts: Mapping[str, int],
    *,
    candidate: str | None = None,
    **settings,
) -> None:
    """Write a set of images, see :func:`draw`, to each of ``paths``: image tables with rows of the tables ``sources``.

    ``candidate`` : of the images made for comparison, only those of this one. In memory are the ids of all images, and
    the rows of one set.
    """
    table = images.read_columns(*sources, columns=("image_id", "class", "candidate"))
    places = np.arange(len(table)) if candidate is None else np.flatnonzero(table.pop("candidate") == candidate)
    sets = draw(table[["image_id", "class"]].iloc[places], counts, splits=len(paths), **settings)
    del table
    for path, drawn in zip(paths, sets, strict=True):
        images.write_rows(path, sources, places[drawn])


def draw(
    added: pd.DataFrame,
    counts: Mapping[str, int],
    *,
    ratio: float,
    splits: int,
    order: str,
    seed_key: Sequence,
    allow_fewer: bool = False,
) -> list[np.ndarray]:
    """Draw ``splits`` sets with ``ratio`` times as many images per class as the target (paper, section 3).

    Parameters
    ----------
    added : columns image_id and class of the images; classes that are not in ``counts`` are dropped
    counts : class -> images that ratio 1 adds: the number of training images of the target, or what a class lacks
    order : ``random``, each split an independent draw without replacement, whatever the order of rows;
        ``listed``, the first of each class, so that all splits are equal, and a class with too few is left out
        (paper, Figure 5B); ``all``, every image whatever the ratio; or ``available``, as random, but all images of a
        class with too few
    seed_key : what the draws are derived from, together with split (from 1) and class
    allow_fewer : of a class with too few images all are taken

    Returns the places in ``added`` of the images of each set, with classes in the order of ``counts``. Raises
    ValueError for an unknown order, and when a class has too few images, naming it; of ``listed`` ones when all have.
    """
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}; use one of {', '.join(ORDERS)}")
    ranked = np.arange(len(added)) if order == "listed" else added["image_id"].array.argsort(kind="stable")
    groups = _by_class(added["class"], ranked, list(counts))
    drawn = []
    for split in range(1, splits + 1):
        parts = [
            _pick(group, key, added_count(counts[key], ratio), order, (*seed_key, split, key), allow_fewer)
            for key, group in groups.items()
        ]
        drawn.append(np.concatenate(parts) if parts else ranked[:0])
        if order == "listed" and counts and not len(drawn[-1]):
            raise ValueError(f"no class has as many images as ratio {ratio:g} wants")
    return drawn


def _by_class(classes: pd.Series, ranked: np.ndarray, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Class -> the places of its images, in the order of ``ranked``."""
    numbers = images.places_of(classes, keys)[ranked]
    order = np.argsort(numbers, kind="stable")
    begins = np.searchsorted(numbers[order], np.arange(len(keys) + 1))
    return {key: ranked[order[begins[k] : begins[k + 1]]] for k, key in enumerate(keys)}


def _pick(group: np.ndarray, key: str, number: int, order: str, seed_key: tuple, allow_fewer: bool) -> np.ndarray:
    if order in ("all", "available") and number:
        if not len(group):
            raise ValueError(f"class {key!r}: at least one image is wanted, there is none")
        if order == "all":
            return group
    if order == "listed":
        return group[: number if len(group) >= number or allow_fewer else 0]
    if len(group) < number and not allow_fewer and order == "random":
        raise ValueError(f"class {key!r}: {number} images are wanted, there are {len(group)}")
    return group[np.sort(generator(*seed_key).permutation(len(group))[:number])]
