"""The table of a set of images: one row per image, with a reference to its bytes.

The bytes are a file, or a stretch of an uncompressed tar (a WebDataset shard). Splits are tables; no image is ever
copied to make one.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from augbench.core import files
from augbench.core.files import whole
from augbench.images import parquet_images, pixels

pc: Any = pyarrow.compute  # of whose functions no type checker knows

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # unique and stable: where an image comes from, never its position
        ("class", pa.string()),  # class key, e.g. a wnid or folder name
        ("path", pa.string()),  # file, or shard that holds the bytes
        ("offset", pa.int64()),  # first byte within the shard, or row of Parquet; null: the file is the image
        ("length", pa.int64()),  # number of bytes; null with offset, and perhaps of a row of Parquet
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
        ("method", pa.string()),  # that it is of, in a union of several methods' images; else null
    ]
)


REFERENCE = ("image_id", "class", "path", "offset", "length")  # all that it takes to load an image and to label it


def table(rows: Iterable[dict]) -> pd.DataFrame:
    """An image table from rows; columns that a row leaves out are null."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMA).to_pandas(types_mapper=_nullable)


def _nullable(kind: pa.DataType):
    return {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}.get(kind)


def _compact(kind: pa.DataType):
    """Texts as Arrow has them: a Python object for each would take five times the memory."""
    return pd.ArrowDtype(kind) if pa.types.is_large_string(kind) else _nullable(kind)


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


def read_rows(sources: Sequence[str | Path], places: np.ndarray) -> pd.DataFrame:
    """The rows of several image tables, taken as one, at some ``places`` (int (n,)), in their order. In memory are
    these rows and one of the tables."""
    return _rows(sources, places).to_pandas(types_mapper=_nullable)


def write_rows(path: str | Path, sources: Sequence[str | Path], places: np.ndarray) -> None:
    """Write :func:`read_rows` as :func:`write` does. Raises ValueError when an ``image_id`` occurs twice."""
    _write(path, _rows(sources, places))


def _rows(sources: Sequence[str | Path], places: np.ndarray) -> pa.Table:
    order = np.argsort(places, kind="stable")
    increasing, parts, begin = places[order], [SCHEMA.empty_table()], 0
    for source in sources:
        end = begin + count(source)
        first, last = np.searchsorted(increasing, [begin, end])
        if first < last:
            parts.append(pq.read_table(source, schema=SCHEMA).take(increasing[first:last] - begin))
        begin = end
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_tables(parts).combine_chunks().take(back)


def write_batches(path: str | Path, batches: Iterable[Sequence[dict]]) -> None:
    """Write an image table from batches of rows, of which columns that a row leaves out are null; as :func:`write`."""
    tables = [SCHEMA.empty_table(), *(pa.Table.from_pylist(list(rows), schema=SCHEMA) for rows in batches)]
    _write(path, pa.concat_tables(tables).combine_chunks())


def _write(path: str | Path, rows: pa.Table) -> None:
    if len(pc.unique(rows["image_id"])) < len(rows):
        counted = rows["image_id"].value_counts().to_pylist()
        twice = next(each["values"] for each in counted if each["counts"] > 1)
        raise ValueError(f"{path}: image_id {twice!r} occurs twice")
    # What pandas notes of its types, so that the bytes are those of a table that it writes.
    noted = pa.Table.from_pandas(table([]), schema=SCHEMA, preserve_index=False).schema.metadata
    with whole(path) as temporary:
        pq.write_table(rows.replace_schema_metadata(noted), temporary)


def read(*paths: str | Path, extra: Iterable[str] = ()) -> pd.DataFrame:
    """Read one or several image tables as one, in the order given."""
    schema = _with(extra)
    tables = [pq.read_table(path, schema=schema) for path in paths]
    return pa.concat_tables(tables or [schema.empty_table()]).to_pandas(types_mapper=_nullable)


def read_columns(*paths: str | Path, columns: Sequence[str] = REFERENCE) -> pd.DataFrame:
    """Some columns of one or several image tables, for tables of millions of images: texts have Arrow's type."""
    tables = [_columns(path, columns) for path in paths]
    return pa.concat_tables(tables or [_large(SCHEMA, columns).empty_table()]).to_pandas(types_mapper=_compact)


def read_distinct(*paths: str | Path, columns: Sequence[str] = REFERENCE) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Several image tables that may share images: as one table, see :func:`read_columns`, that has each image once, by
    first appearance; and for each path the places of its images there, int32, in the order of its own table.

    ``columns`` start with image_id. At no time is more in memory than the distinct images and one of the tables.
    """
    known, parts, places, count = [], [_large(SCHEMA, columns).empty_table()], [], 0
    for path in paths:
        ids = _columns(path, ["image_id"])["image_id"].combine_chunks()
        seen = pc.index_in(ids, pa.chunked_array(known, pa.large_string()))
        if seen.null_count:
            fresh = pc.unique(ids.filter(pc.is_null(seen)))
            firsts = pc.index_in(fresh, ids)
            parts.append(_columns(path, columns).take(firsts))
            numbers = pc.add(pc.index_in(ids, fresh), pa.scalar(count, pa.int32()))
            seen = pc.coalesce(seen, numbers)
            known.append(fresh)
            count += len(fresh)
        places.append(seen.to_numpy())
    return pa.concat_tables(parts).to_pandas(types_mapper=_compact), places


def _columns(path: str | Path, columns: Sequence[str]) -> pa.Table:
    return pq.read_table(path, schema=SCHEMA, columns=list(columns)).cast(_large(SCHEMA, columns))


def _large(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """The fields of some columns, with texts that may be more than 2 GiB."""
    kinds = {pa.string(): pa.large_string()}
    return pa.schema([(name, kinds.get(schema.field(name).type, schema.field(name).type)) for name in columns])


def places_of(texts: pd.Series, known: Sequence[str] | pa.ChunkedArray) -> np.ndarray:
    """Where among ``known`` ids or classes each of ``texts`` stands first, int32 (n,); -1 for one that is not there."""
    among: Any = known if isinstance(known, pa.ChunkedArray) else pa.array(known, pa.string())
    places = pc.index_in(_array(texts, pa.large_string()), among.cast(pa.large_string()))
    return pc.fill_null(places, -1).to_numpy()


def count(*paths: str | Path) -> int:
    """Rows of image tables, without reading them."""
    return sum(pq.read_metadata(path).num_rows for path in paths)


def digest(images: pd.DataFrame) -> str:
    """A SHA-256 of the columns ``REFERENCE`` of a table of images."""
    columns = {name: _array(images[name], _large(SCHEMA, [name]).field(name).type) for name in REFERENCE}
    numbers = {name: pc.fill_null(columns[name], -1) for name in ("offset", "length")}
    hashed = _Hashed()
    with pa.ipc.new_stream(pa.PythonFile(hashed, "w"), _large(SCHEMA, REFERENCE)) as stream:
        stream.write_table(pa.table(columns | numbers), max_chunksize=100_000)
    return hashed.sha256.hexdigest()


class _Hashed(io.RawIOBase):
    """A file of which nothing is kept but a hash of what is written."""

    def __init__(self):
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.sha256.update(data)
        return len(data)


class Reference(NamedTuple):
    """What it takes to load an image; offset and length are None where the file is the image."""

    image_id: str
    path: str
    offset: int | None
    length: int | None


class References(Sequence):
    """The images of a table as :class:`Reference`, each made when it is asked for.

    Unlike a list, it takes the memory of its texts alone, and processes that are forked share it.
    """

    def __init__(self, images: pd.DataFrame):
        kinds = {"image_id": pa.large_string(), "path": pa.large_string(), "offset": pa.int64(), "length": pa.int64()}
        self.columns = [_array(images[name], kinds[name]) for name in Reference._fields]

    def __len__(self) -> int:
        return len(self.columns[0])

    def reading_order(self) -> np.ndarray:
        """The places of the images, int64 (n,), in the order in which a job loads all of them the quickest."""
        _, paths, offsets, _ = self.columns
        return parquet_images.reading_order(paths, offsets)

    def __getitem__(self, place) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return Reference(*(column[place].as_py() for column in self.columns))


def _array(values: pd.Series, kind: pa.DataType) -> pa.Array:
    column = pa.array(values, from_pandas=True)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.cast(kind)


def load_bytes(row) -> bytes:
    """The encoded image a row refers to (row: anything with ``path``, ``offset``, ``length``)."""
    if pd.isna(row.offset):
        return files.read_bytes(row.path)
    if parquet_images.is_one(row.path):
        return parquet_images.load(row.path, int(row.offset))
    with open(row.path, "rb") as shard:
        shard.seek(int(row.offset))
        return shard.read(int(row.length))


def name_of(row) -> str:
    """What to call a row's image in a message."""
    return row.path if pd.isna(row.offset) else f"{row.image_id} in {row.path}"


def load(row, at_least: tuple[int, int] | None = None):
    """The image of a row as RGB ``PIL.Image``; ``at_least`` as in :func:`augbench.images.pixels.decode`."""
    return pixels.decode(load_bytes(row), name_of(row), at_least=at_least)
