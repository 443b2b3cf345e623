"""The metadata of a clip-retrieval folder: HDF5, Arrow or Parquet, read from the disk row by row."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from augbench.core import texts
from augbench.core.files import whole
from augbench.images.folders import is_system
from augbench.study.sources import COLUMNS

PLACE = ["path", "offset", "length"]  # of an image on this machine
SPELLINGS = COLUMNS | {name: [name] for name in PLACE}
WANTED = [spelt for names in COLUMNS.values() for spelt in names]  # columns that are read
NUMBERS = {"aesthetic": "float64", "offset": "int64", "length": "int64"}  # columns that hold no text


def files(folder: Path) -> list[Path]:
    """The files of a clip-retrieval folder's metadata, of one kind, in their order. Raises ValueError without any."""
    if (folder / "metadata.hdf5").is_file():
        return [folder / "metadata.hdf5"]
    for pattern in ("**/*.arrow", "*.parquet"):
        if files := sorted(file for file in (folder / "metadata").glob(pattern) if not is_system(file.name)):
            return files
    raise ValueError(f"{folder} has no metadata: metadata.hdf5, metadata/*.arrow or metadata/*.parquet")


def shape(folder: str | Path) -> tuple[int, list[str]]:
    """Rows and columns of a clip-retrieval folder's metadata; columns are those that any of its files has.

    Raises ValueError when there are none, or a file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, parts = Path(folder), []
    try:
        for file in files(folder):
            if file.suffix == ".hdf5":
                import h5py

                with h5py.File(file, "r") as opened:
                    data: Any = opened["dataset"]
                    parts.append((max((len(data[name]) for name in data), default=0), set(data)))
            elif file.suffix == ".arrow":
                table = pa.ipc.open_file(pa.memory_map(str(file), "r")).read_all()
                parts.append((table.num_rows, _once(file, table.column_names)))
            else:
                status = pq.read_metadata(file)
                parts.append((status.num_rows, _once(file, status.schema.to_arrow_schema().names)))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ValueError(f"the metadata {file} cannot be read: {str(error)[:200]}") from None
    return sum(rows for rows, _ in parts), sorted(set.union(*(names for _, names in parts)))


def _once(file: Path, names: Sequence[str]) -> set[str]:
    """A file's columns. Raises ValueError when there are two of a name that is read."""
    if twice := next((name for name in WANTED + PLACE if names.count(name) > 1), None):
        raise ValueError(f"the metadata {file} have several columns {twice!r}; keep one of them, or rename the others")
    return set(names)


def complete(table: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """A table of neighbours (see :mod:`augbench.retrieval.index`) with the metadata ``facts`` of its rows."""
    for name, spellings in SPELLINGS.items():
        table[name] = _first(facts, spellings)
    table["aesthetic"] = pd.to_numeric(table["aesthetic"], errors="coerce") if len(table) else []
    kinds = {"id": "int64", "similarity": float, "aesthetic": float, "duplicate_of": "Int64"}
    return table.astype(kinds | {"path": object, "offset": "Int64", "length": "Int64"})


def _first(facts: pd.DataFrame, names: Sequence[str]):
    return next((facts[name].to_numpy() for name in names if name in facts), None)


def reader(folder: Path, work: Path, wanted: Sequence[str]) -> Callable[[Sequence[int]], pd.DataFrame]:
    """A function from ids to their metadata, in that order, that keeps nothing in memory."""
    parts = files(folder)
    if parts[0].suffix == ".hdf5":
        return _from_hdf5(parts[0], wanted)
    if parts[0].suffix == ".parquet":
        # Of another folder, or for other columns, it is another copy.
        facts = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in parts]
        name = hashlib.sha256(json.dumps([facts, list(wanted)]).encode()).hexdigest()[:16]
        parts = [_as_arrow(parts, work / f"metadata-{name}.arrow", wanted)]
    import pyarrow as pa

    tables = [pa.ipc.open_file(pa.memory_map(str(file), "r")).read_all() for file in parts]
    schema = _joint([table.schema for table in tables], wanted)
    table = pa.concat_tables([_typed(table, schema) for table in tables])
    return lambda ids: table.take(pa.array(ids, pa.int64())).to_pandas()


def _joint(schemas: Sequence, wanted: Sequence[str]):
    """One schema for the parts of an index, with what any of them has of ``wanted``: text in the type that all have,
    so that it stays where it is on the disk, else as plain text, and numbers."""
    import pyarrow as pa

    fields = []
    for name, spellings in _spellings(wanted).items():
        kinds = {schema.field(spelt).type for schema in schemas for spelt in spellings if spelt in schema.names}
        if kinds:
            fields.append((name, kinds.pop() if kinds in ({pa.string()}, {pa.large_string()}) else _kind(name)))
    return pa.schema(fields or [("url", pa.string())])


def _kind(name: str):
    import pyarrow as pa

    return pa.type_for_alias(NUMBERS.get(name, "string"))


def _spellings(wanted: Sequence[str]) -> dict[str, list[str]]:
    return {name: [spelt for spelt in group if spelt in wanted] for name, group in SPELLINGS.items()}


def _typed(table, schema):
    """A part's metadata under the names and types of ``schema``; null where it has none."""
    import pyarrow as pa

    columns = []
    for field in schema:
        spelt = next((spelt for spelt in SPELLINGS[field.name] if spelt in table.column_names), None)
        columns.append(_cast(table[spelt], field.type) if spelt else pa.nulls(table.num_rows, field.type))
    return pa.table(columns, schema=schema)


def _cast(column, kind):
    """A column in another type; values that are none of it are null, or JSON where it is text."""
    import pyarrow as pa

    try:
        return column.cast(kind)
    except pa.ArrowException:
        read = _as_text if pa.types.is_string(kind) or pa.types.is_large_string(kind) else _as_number
        return pa.array([None if value is None else read(value) for value in column.to_pylist()], kind)


def _as_text(value) -> str:
    if isinstance(value, bytes):
        return texts.decode(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _as_number(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _as_arrow(parquet: Sequence[Path], path: Path, wanted: Sequence[str]) -> Path:
    """The Parquet files as one Arrow file, which can be memory-mapped; a batch at a time, once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.exists():
        return path
    schemas = [pq.read_schema(file) for file in parquet]
    schema = _joint(schemas, wanted)
    with whole(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        for file, own in zip(parquet, schemas, strict=True):
            names = [name for name in wanted if name in own.names] or own.names[:1]
            for batch in pq.ParquetFile(file).iter_batches(columns=names, batch_size=100_000):
                writer.write_table(_typed(pa.Table.from_batches([batch]), schema))
    return path


def _from_hdf5(path: Path, wanted: Sequence[str]) -> Callable[[Sequence[int]], pd.DataFrame]:
    import h5py
    import numpy as np

    data: Any = h5py.File(path, "r")["dataset"]
    names = [name for name in wanted if name in data]

    def get(ids):
        order = np.argsort(ids, kind="stable")  # HDF5 reads increasing places only
        unique, back = np.unique(np.asarray(ids)[order], return_inverse=True)
        columns = {}
        for name in names:
            values = data[name][unique] if len(unique) else np.array([])
            values = np.array([texts.decode(v) if isinstance(v, bytes) else v for v in values], dtype=object)
            column = np.empty(len(ids), dtype=object)
            column[order] = values[back]
            columns[name] = column
        return pd.DataFrame(columns)

    return get
