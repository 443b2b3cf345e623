"""Draws, from all images of a method, the sets that are added to the training set, one per repeated run."""

from collections.abc import Mapping, Sequence

import pandas as pd

from augbench.classes import added as added_count
from augbench.seeds import generator

ORDERS = ("random", "similarity", "all")


def resample(
    added: pd.DataFrame,
    counts: Mapping[str, int],
    *,
    ratio: float,
    splits: int,
    order: str,
    seed_key: Sequence,
) -> list[pd.DataFrame]:
    """Draw ``splits`` sets with ``ratio`` times as many images per class as the target (paper, section 3).

    Parameters
    ----------
    added : image table; its row order does not matter, classes that are not in ``counts`` are dropped
    counts : class -> number of training images of the target
    order : ``random``, each split an independent draw without replacement; ``similarity``, the images most
        similar to their query, ties by ``image_id``, so that all splits are equal; or ``all``, every image
        whatever the ratio
    seed_key : what the draws are derived from, together with split (from 1) and class

    Returns image tables with classes in the order of ``counts``. Raises ValueError for an unknown order, and
    when a class has too few images, naming it, or images without a similarity are to be ordered by it.
    """
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}; use one of {', '.join(ORDERS)}")
    added = added.sort_values("image_id", kind="stable", ignore_index=True)
    if order == "similarity":
        added = added.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)
    groups = dict(iter(added.groupby("class", sort=False)))
    missing = added.iloc[:0]
    drawn = []
    for split in range(1, splits + 1):
        parts = [
            _pick(groups.get(key, missing), key, added_count(count, ratio), order, (*seed_key, split, key))
            for key, count in counts.items()
        ]
        drawn.append(pd.concat([missing, *parts], ignore_index=True) if parts else missing.copy())
    return drawn


def _pick(group: pd.DataFrame, key: str, number: int, order: str, seed_key: tuple) -> pd.DataFrame:
    if order == "all":
        if group.empty:
            raise ValueError(f"class {key!r}: at least one image is wanted, there is none")
        return group
    if len(group) < number:
        raise ValueError(f"class {key!r}: {number} images are wanted, there are {len(group)}")
    if order == "similarity":
        if group["similarity"].isna().any():
            raise ValueError(f"class {key!r}: cannot order by similarity, some images have none")
        return group.iloc[:number]
    chosen = generator(*seed_key).permutation(len(group))[:number]
    return group.iloc[sorted(chosen)]
