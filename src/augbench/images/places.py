"""Where a target's image lies: in a file of its own, which is a Path, or in a row of a Parquet file."""

import io
import os
from pathlib import Path
from typing import NamedTuple

from augbench.core import files
from augbench.images import parquet_images


class Row(NamedTuple):
    """A row of a Parquet file of images, by its number from 0. Rows are sorted as they lie."""

    path: str
    number: int


Place = Path | Row


def file_of(place: Place) -> str | Path:
    """The file that holds an image, and perhaps others."""
    return place.path if isinstance(place, Row) else place


def name_of(place: Place) -> str:
    """What to call an image in a message."""
    return f"row {place.number} (counted from 0) of {place.path}" if isinstance(place, Row) else str(place)


def load_bytes(place: Place) -> bytes:
    """The encoded image; empty where a row has none."""
    return parquet_images.load(*place) if isinstance(place, Row) else files.read_bytes(place)


def to_open(place: Place) -> Path | io.BytesIO:
    """What to open an image from: its file, or its bytes."""
    return io.BytesIO(load_bytes(place)) if isinstance(place, Row) else place


def reference(place: Place, root: Path) -> dict[str, str | int]:
    """The columns of an image table that say where an image lies; its id is relative to ``root``."""
    if isinstance(place, Row):
        relative = os.path.relpath(place.path, root)
        return {"image_id": f"{relative}:{place.number}", "path": place.path, "offset": place.number}
    return {"image_id": os.path.relpath(place, root), "path": str(place)}
