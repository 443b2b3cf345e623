"""Draws the sets of a union of methods from the sets of each: run by run, in exact shares of every class."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from augbench import images
from augbench.core.seeds import generator
from augbench.core.shares import shares as dealt
from augbench.study.classes import added as added_count


class Part(NamedTuple):
    """A method whose images a union takes, and how: ``share`` of all is a fraction as text, ``1/2``; ``order`` and
    ``allow_fewer`` as in :func:`augbench.dataset.resampling.draw`."""

    method: str
    share: str
    order: str = "random"
    allow_fewer: bool = False


def write_sets(
    paths: Sequence[str | Path],
    sets: Sequence[str | Path],
    counts: Mapping[str, int],
    *,
    parts: Sequence[Part],
    ratio: float,
    seed_key: Sequence,
) -> None:
    """Write a set of images, see :func:`draw`, to each of ``paths``; its column ``method`` says whose each image is.

    ``sets`` are those of the ``parts``, the runs of each in turn; ``counts`` are the images that ratio 1 adds by class.
    """
    wanted = allocate({key: added_count(count, ratio) for key, count in counts.items()}, parts)
    runs = zip(*dealt([part.method for part in parts], sets).values(), strict=True)
    for split, (path, own) in enumerate(zip(paths, runs, strict=True), 1):
        tables = [images.read_columns(each, columns=("image_id", "class")) for each in own]
        drawn = draw(tables, wanted, parts, seed_key=(*seed_key, split))
        begins = np.cumsum([0, *map(len, tables)])
        rows = images.read_rows(own, begins[drawn["part"].to_numpy()] + drawn["place"].to_numpy())
        images.write(path, rows.assign(method=[parts[k].method for k in drawn["part"]]))


def allocate(totals: Mapping[str, int], parts: Sequence[Part]) -> dict[str, list[int]]:
    """Class -> images of each part, which sum to its total and miss the shares by less than one image.

    Largest remainders: each part has the whole images of its share, and those left go to the parts with the largest
    fractions; of equal ones to that which is further behind its share of all classes before, then to the first. So
    halves of two classes of five are 3 + 2 and 2 + 3.
    """
    shares = [Fraction(part.share) for part in parts]
    behind = [Fraction(0)] * len(parts)
    allocated = {}
    for key, total in totals.items():
        quotas = [share * total for share in shares]
        numbers = [math.floor(quota) for quota in quotas]
        ranked = sorted(range(len(parts)), key=lambda k: (numbers[k] - quotas[k], -behind[k]))
        for k in ranked[: total - sum(numbers)]:
            numbers[k] += 1
        behind = [late + quota - number for late, quota, number in zip(behind, quotas, numbers, strict=True)]
        allocated[key] = numbers
    return allocated


def draw(
    tables: Sequence[pd.DataFrame], wanted: Mapping[str, Sequence[int]], parts: Sequence[Part], *, seed_key: Sequence
) -> pd.DataFrame:
    """The images of a set: ``part`` by number, and ``place`` in its table.

    Classes come in the order of ``wanted``, and of each the images of the parts evenly mixed: the first ones show all.

    Parameters
    ----------
    tables : of each part, image_id and class of a set of its images
    wanted : :func:`allocate`'s
    parts : of those with the order ``listed`` the first images of a class are taken, of others a seeded draw without
        replacement, whatever the order of rows. A class that such a list leaves out is left out of the union
    seed_key : what the draws are derived from, together with method and class

    Raises ValueError when a class has too few images, naming it.
    """
    groups = [_by_class(table, part) for table, part in zip(tables, parts, strict=True)]
    lacking = {
        key
        for key, numbers in wanted.items()
        for group, part, number in zip(groups, parts, numbers, strict=True)
        if part.order == "listed" and len(group.get(key, ())) < number
    }
    drawn = []
    for key, numbers in wanted.items():
        if key in lacking:
            continue
        chosen = [
            _pick(group.get(key, np.empty(0, int)), key, number, part, seed_key)
            for group, part, number in zip(groups, parts, numbers, strict=True)
        ]
        drawn.append(_mixed(chosen))
    return pd.DataFrame(np.concatenate([np.empty((0, 2), int), *drawn]), columns=["part", "place"])


def _mixed(chosen: Sequence[np.ndarray]) -> np.ndarray:
    """The places that each part has, evenly mixed: int (n, 2), part and place."""
    numbers = [len(places) for places in chosen]
    when = np.concatenate([(np.arange(number) + 0.5) / max(1, number) for number in numbers])
    rows = np.stack([np.repeat(np.arange(len(chosen)), numbers), np.concatenate(chosen)], axis=1)
    return rows[np.argsort(when, kind="stable")]


def _by_class(table: pd.DataFrame, part: Part) -> dict[str, np.ndarray]:
    """Class -> the places of its images: as they are listed, or by their names."""
    ranked = table if part.order == "listed" else table.sort_values("image_id", kind="stable")
    return {str(key): np.asarray(rows.index) for key, rows in ranked.groupby("class", sort=False)}


def _pick(places: np.ndarray, key: str, number: int, part: Part, seed_key: Sequence) -> np.ndarray:
    if part.order == "listed":
        return places[:number]
    if len(places) < number and not part.allow_fewer:
        raise ValueError(f"class {key!r}: {number} images of {part.method} are wanted, there are {len(places)}")
    order = generator(*seed_key, part.method, key).permutation(len(places))
    return places[np.sort(order[:number])]
