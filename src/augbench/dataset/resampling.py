"""Draws, from all images of a method, the sets that are added to the training set, one per repeated run."""

from collections.abc import Mapping, Sequence

import pandas as pd

from augbench.core.seeds import generator
from augbench.study.classes import added as added_count

ORDERS = ("random", "listed", "all")


def resample(
    added: pd.DataFrame,
    counts: Mapping[str, int],
    *,
    ratio: float,
    splits: int,
    order: str,
    seed_key: Sequence,
    allow_fewer: bool = False,
) -> list[pd.DataFrame]:
    """Draw ``splits`` sets with ``ratio`` times as many images per class as the target (paper, section 3).

    Parameters
    ----------
    added : image table; classes that are not in ``counts`` are dropped
    counts : class -> number of training images of the target
    order : ``random``, each split an independent draw without replacement, whatever the order of rows;
        ``listed``, the first of each class, so that all splits are equal, and a class with too few is left out
        (paper, Figure 5B); or ``all``, every image whatever the ratio
    seed_key : what the draws are derived from, together with split (from 1) and class
    allow_fewer : of a class with too few images for a ``random`` draw all are taken

    Returns image tables with classes in the order of ``counts``. Raises ValueError for an unknown order, and
    when a class has too few images, naming it; of ``listed`` ones when all have.
    """
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}; use one of {', '.join(ORDERS)}")
    if order != "listed":
        added = added.sort_values("image_id", kind="stable", ignore_index=True)
    groups = dict(iter(added.groupby("class", sort=False)))
    missing = added.iloc[:0]
    drawn = []
    for split in range(1, splits + 1):
        parts = [
            _pick(groups.get(key, missing), key, added_count(count, ratio), order, (*seed_key, split, key), allow_fewer)
            for key, count in counts.items()
        ]
        if order == "listed" and counts and all(part.empty for part in parts):
            raise ValueError(f"no class has as many images as ratio {ratio:g} wants")
        drawn.append(pd.concat([missing, *parts], ignore_index=True) if parts else missing.copy())
    return drawn


def _pick(group: pd.DataFrame, key: str, number: int, order: str, seed_key: tuple, allow_fewer: bool) -> pd.DataFrame:
    if order == "all":
        if group.empty:
            raise ValueError(f"class {key!r}: at least one image is wanted, there is none")
        return group
    if order == "listed":
        return group.iloc[: number if len(group) >= number else 0]
    if len(group) < number and not allow_fewer:
        raise ValueError(f"class {key!r}: {number} images are wanted, there are {len(group)}")
    chosen = generator(*seed_key).permutation(len(group))[:number]
    return group.iloc[sorted(chosen)]
