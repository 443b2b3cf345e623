"""The page on which people judge duplicate candidates: one file that needs no network (paper, section 4.5)."""

import functools
import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from augbench.audit import verdicts
from augbench.core import files, pages
from augbench.images.thumbnails import thumbnail

THUMBNAIL = 192  # pixels, longer side; with the number of pairs it bounds the size of the page


class Place(NamedTuple):
    """Where an image of a candidate pair lies."""

    image_id: str
    path: str
    offset: int
    length: int


def write(
    path: str | Path,
    candidates: pd.DataFrame,
    *,
    study: str,
    method: str,
    title: str,
    size: int,
    in_full: Collection[str],
    seed: int,
) -> None:
    """Write the review page of a method's candidates (``candidates.parquet`` of the audit): all of the reference sets
    ``in_full``, and of each other set at most ``size``, a random sample.

    The page keeps its verdicts in the browser, under the study, the method and a digest of the pairs, and saves them
    as ``verdicts.csv``. All text from data is escaped.
    """
    shown = verdicts.sample(candidates, size, in_full, seed, method)
    pictures = functools.cache(_picture)  # one reference image may be in many pairs
    pairs = [_pair(row, pictures) for row in shown.rename(columns={"class": "added_class"}).itertuples()]
    key = repr(shown[verdicts.KEY].astype(str).to_numpy().tolist()).encode()
    page = pages.template("review.html.j2").render(
        study=study,
        method=method,
        title=title,
        candidates=len(candidates),
        pairs=pairs,
        storage=f"augbench/{study}/{method}/{hashlib.sha256(key).hexdigest()[:16]}",
    )
    files.write_text(path, page)


def _pair(row, pictures) -> dict:
    """What the page shows of a candidate pair, as it is written into its script."""
    return {
        "added_id": str(row.added_id),
        "reference_set": str(row.reference_set),
        "reference_id": str(row.reference_id),
        "added_class": str(row.added_class),
        "reference_class": str(row.reference_class),
        "distance": int(row.distance),
        "similarity": None if pd.isna(row.similarity) else round(float(row.similarity), 3),
        "added": pictures(Place(row.added_id, row.added_path, row.added_offset, row.added_length)),
        "reference": pictures(Place(row.reference_id, row.reference_path, row.reference_offset, row.reference_length)),
    }


def _picture(place: Place) -> str | None:
    """An image as a data URI of bounded size; None when it cannot be read."""
    return thumbnail(place, "", THUMBNAIL)["src"]
