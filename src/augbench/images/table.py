"""The table of a set of images: one row per image, with a reference to its bytes.

The bytes are a file, or a stretch of an uncompressed tar (a WebDataset shard). Splits are tables; no image is ever
copied to make one.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from augbench.core import files
from augbench.core.files import whole
from augbench.images import pixels

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # unique and stable: where an image comes from, never its position
        ("class", pa.string()),  # class key, e.g. a wnid or folder name
        ("path", pa.string()),  # file, or shard that holds the bytes
        ("offset", pa.int64()),  # first byte within the shard; null: the file is the image
        ("length", pa.int64()),  # number of bytes; null with offset
        # provenance of generated images
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("candidate", pa.string()),
        ("cluster", pa.int32()),  # of its class, from 0, whose conditioning guided it; null without clusters
        ("start_image", pa.string()),  # image_id of the training image that it begins from; null: noise
        ("replaced", pa.int32()),  # draws the safety checker refused before this one
        # provenance of retrieved images
        ("url", pa.string()),
        ("similarity", pa.float64()),  # cosine similarity to the query, unitless
        ("sha256", pa.string()),  # of the bytes as downloaded
        # what is known of images that were made elsewhere
        ("model", pa.string()),  # what made it
        ("licence", pa.string()),  # its terms
    ]
)


def table(rows: Iterable[dict]) -> pd.DataFrame:
    """An image table from rows; columns that a row leaves out are null."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMA).to_pandas(types_mapper=_nullable)


def _nullable(kind: pa.DataType):
    return {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}.get(kind)


def _with(extra: Iterable[str]) -> pa.Schema:
    return pa.schema([*SCHEMA, *((name, pa.string()) for name in extra)])


def write(path: str | Path, images: pd.DataFrame, extra: Iterable[str] = ()) -> None:
    """Write an image table to Parquet, with further text columns ``extra``.

    Raises ValueError when an ``image_id`` occurs twice.
    """
    twice = images["image_id"][images["image_id"].duplicated()]
    if len(twice):
        raise ValueError(f"{path}: image_id {twice.iloc[0]!r} occurs twice")
    with whole(path) as temporary:
        pq.write_table(pa.Table.from_pandas(images, schema=_with(extra), preserve_index=False), temporary)


def read(*paths: str | Path, extra: Iterable[str] = ()) -> pd.DataFrame:
    """Read one or several image tables as one, in the order given."""
    schema = _with(extra)
    tables = [pq.read_table(path, schema=schema) for path in paths]
    return pa.concat_tables(tables or [schema.empty_table()]).to_pandas(types_mapper=_nullable)


def load_bytes(row) -> bytes:
    """The encoded image a row refers to (row: anything with ``path``, ``offset``, ``length``)."""
    if pd.isna(row.offset):
        return files.read_bytes(row.path)
    with open(row.path, "rb") as shard:
        shard.seek(int(row.offset))
        return shard.read(int(row.length))


def name_of(row) -> str:
    """What to call a row's image in a message."""
    return row.path if pd.isna(row.offset) else f"{row.image_id} in {row.path}"


def load(row, at_least: tuple[int, int] | None = None):
    """The image of a row as RGB ``PIL.Image``; ``at_least`` as in :func:`augbench.images.pixels.decode`."""
    return pixels.decode(load_bytes(row), name_of(row), at_least=at_least)
