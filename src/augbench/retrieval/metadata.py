"""The metadata of a clip-retrieval folder: HDF5, Arrow or Parquet, read from the disk row by row."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from augbench.core import texts
from augbench.images.folders import is_system
from augbench.study.sources import COLUMNS, PROVENANCE

PLACE = ["path", "offset", "length"]  # of an image on this machine
SPELLINGS = COLUMNS | PROVENANCE | {name: [name] for name in PLACE}
WANTED = [spelt for names in (COLUMNS | PROVENANCE).values() for spelt in names]  # columns that are read
NUMBERS = {"aesthetic": "float64", "offset": "int64", "length": "int64"}  # columns that hold no text
PASS = 1_000_000  # ids for which a pass over Parquet is made: with their addresses and captions some 700 MB
TOGETHER = 20_000  # ids that are looked up together elsewhere: those of some queries lie in the same batches
BATCH = 65_536  # rows of Parquet that are decoded at a time


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
                data = _dataset(file)
                parts.append((_hdf5_rows(data), set(data)))
            elif file.suffix == ".arrow":
                opened = _opened(file)
                parts.append((sum(_batch_sizes(opened)), _once(file, opened.schema.names)))
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
        if name not in PROVENANCE or any(spelt in facts for spelt in spellings):
            table[name] = _first(facts, spellings)
    table["aesthetic"] = pd.to_numeric(table["aesthetic"], errors="coerce") if len(table) else []
    kinds = {"id": "int64", "similarity": float, "aesthetic": float, "duplicate_of": "Int64"}
    return table.astype(kinds | {"path": object, "offset": "Int64", "length": "Int64"})


def _first(facts: pd.DataFrame, names: Sequence[str]):
    return next((facts[name].to_numpy() for name in names if name in facts), None)


class Reader:
    """Reads metadata by id: only the rows that are asked for are ever in memory.

    Parameters
    ----------
    rows : gives the metadata of ids, int64 (n,), increasing, as an Arrow table in their order
    at_once : ids that are read together, where a call of ``rows`` has to pass over the whole table
    provenance : what of PROVENANCE the metadata have
    """

    def __init__(self, rows: Callable, at_once: int, provenance: Sequence[str] = ()):
        self.rows, self.at_once, self.provenance = rows, at_once, list(provenance)

    def complete(self, tables: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Tables of neighbours (see :mod:`augbench.retrieval.index`) with the metadata of their ids; so many are read
        from ``tables`` before the first is given that they have ``at_once`` ids."""
        import numpy as np

        for group in _groups(tables, self.at_once):
            distinct = np.unique(np.concatenate([table["id"].to_numpy(np.int64) for table in group]))
            facts = self.rows(distinct)
            for table in group:
                yield complete(table, facts.take(np.searchsorted(distinct, table["id"])).to_pandas())


def _groups(tables: Iterable[pd.DataFrame], least: int) -> Iterator[list[pd.DataFrame]]:
    """Consecutive tables that together have ``least`` rows; the last group may have fewer."""
    group, count = [], 0
    for table in tables:
        group.append(table)
        count += len(table)
        if count >= least:
            yield group
            group, count = [], 0
    if group:
        yield group


def reader(folder: Path, wanted: Sequence[str]) -> Reader:
    """A reader of a clip-retrieval folder's metadata, of the columns ``wanted``. Memory and, but for Parquet, time do
    not depend on the number of rows."""
    parts = files(folder)
    if parts[0].suffix == ".hdf5":
        return Reader(_from_hdf5(parts[0], wanted), TOGETHER, _provenance(parts))
    if parts[0].suffix == ".arrow":
        return Reader(_from_arrow(parts, wanted), TOGETHER, _provenance(parts))
    return of_parquet(parts, wanted)


def of_parquet(parts: Sequence[Path], wanted: Sequence[str]) -> Reader:
    """A reader of Parquet files, of the columns ``wanted``; ids number the rows of all files, one after the other."""
    return Reader(_from_parquet(parts, wanted), PASS, _provenance(parts))


def _provenance(parts: Sequence[Path]) -> list[str]:
    """What of PROVENANCE any of some files of metadata has."""
    known = {name for file in parts for name in _names(file)}
    return [name for name, spellings in PROVENANCE.items() if known & set(spellings)]


def _names(file: Path) -> list[str]:
    """The columns of a file of metadata."""
    import pyarrow.parquet as pq

    if file.suffix == ".hdf5":
        return list(_dataset(file))
    return _opened(file).schema.names if file.suffix == ".arrow" else pq.read_schema(file).names


def rows_of(file: Path) -> int:
    """The number of rows of a file of metadata."""
    import pyarrow.parquet as pq

    if file.suffix == ".hdf5":
        return _hdf5_rows(_dataset(file))
    return sum(_batch_sizes(_opened(file))) if file.suffix == ".arrow" else pq.read_metadata(file).num_rows


def captions(file: Path) -> Iterator[list[str | None]]:
    """The captions of all rows of a file of metadata, some at a time; None where there is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".hdf5":
        data = _dataset(file)
        name = next((spelt for spelt in COLUMNS["caption"] if spelt in data), None)
        for begin in range(0, count := _hdf5_rows(data), BATCH):
            end = min(begin + BATCH, count)
            yield _arrow(data[name][begin:end]).to_pylist() if name else [None] * (end - begin)
        return
    schema = pa.schema([("caption", _kind("caption"))])
    if file.suffix == ".arrow":
        opened = _opened(file)
        batches = (opened.get_batch(place) for place in range(opened.num_record_batches))
    else:
        names = pq.read_schema(file).names
        name = next((spelt for spelt in COLUMNS["caption"] if spelt in names), names[0])
        batches = _batches(file, name)
    for batch in batches:
        for begin in range(0, batch.num_rows, BATCH):
            yield _typed(pa.Table.from_batches([batch.slice(begin, BATCH)]), schema)["caption"].to_pylist()


def _batches(file: Path, name: str) -> Iterator:
    """A column of a Parquet file, as batches."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, memory_map=True) as opened:
        yield from opened.iter_batches(BATCH, columns=[name])


def _dataset(file: Path) -> Any:
    import h5py

    return h5py.File(file, "r")["dataset"]


def _hdf5_rows(data: Any) -> int:
    return max((len(data[name]) for name in data), default=0)


def _opened(file: Path):
    """An Arrow file, mapped into memory: its batches take none until they are read."""
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(file), "r"))


def _batch_sizes(opened) -> list[int]:
    """Rows of each batch of an Arrow file."""
    return [opened.get_batch(place).num_rows for place in range(opened.num_record_batches)]


def _from_arrow(parts: Sequence[Path], wanted: Sequence[str]) -> Callable:
    """See :class:`Reader`. Rows are taken batch by batch: ``Table.take`` copies whole columns first, and fails where
    one has more than 2 GiB of text."""
    import numpy as np
    import pyarrow as pa

    opened = [_opened(file) for file in parts]
    schema = _joint([part.schema for part in opened], wanted)
    sizes = [_batch_sizes(part) for part in opened]
    batches = [(part, place) for part, each in zip(opened, sizes, strict=True) for place in range(len(each))]
    begins = np.cumsum([0, *itertools.chain(*sizes)])

    def rows(ids):
        holders = np.searchsorted(begins, ids, side="right") - 1
        numbers, firsts = np.unique(holders, return_index=True)
        taken = []
        for number, mine in zip(numbers, np.split(ids, firsts)[1:], strict=True):
            part, place = batches[number]
            taken.append(_taken(part.get_batch(place), wanted, mine - begins[number]))
        alike = itertools.groupby(taken, lambda batch: batch.schema)  # what files of one schema give is cast together
        tables = [_typed(pa.Table.from_batches(list(each)), schema) for _, each in alike]
        return pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()

    return rows


def _from_parquet(parts: Sequence[Path], wanted: Sequence[str]) -> Callable:
    """See :class:`Reader`. A row of Parquet cannot be read without those before it in its row group, so each call
    passes once over all row groups that have a row which is asked for."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(file) for file in parts]
    schema = _joint(schemas, wanted)
    names = [[name for name in each.names if name in wanted] or each.names[:1] for each in schemas]
    begins = np.cumsum([0, *(pq.read_metadata(file).num_rows for file in parts)])

    def rows(ids):
        tables = [schema.empty_table()]
        for place, file in enumerate(parts):
            first, last = np.searchsorted(ids, begins[place : place + 2])
            if first < last:
                mine = ids[first:last] - begins[place]
                taken = list(_in_row_groups(file, names[place], mine))
                tables.append(_typed(pa.Table.from_batches(taken), schema))
        return pa.concat_tables(tables).combine_chunks()

    return rows


def _in_row_groups(file: Path, names: Sequence[str], places) -> Iterator:
    """Rows of a Parquet file at increasing ``places``, as batches in their order."""
    import numpy as np
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, memory_map=True) as opened:
        begin = 0
        for group in range(opened.num_row_groups):
            end = begin + opened.metadata.row_group(group).num_rows
            mine = places[slice(*np.searchsorted(places, [begin, end]))]
            if len(mine):
                yield from _in_batches(opened.iter_batches(BATCH, row_groups=[group], columns=names), mine - begin)
            begin = end


def _in_batches(batches: Iterable, places) -> Iterator:
    """Rows at increasing ``places`` of consecutive batches, as batches; those behind the last are not read."""
    import numpy as np

    begin = 0
    for batch in batches:
        end = begin + batch.num_rows
        first, last = np.searchsorted(places, [begin, end])
        if first < last:
            yield _taken(batch, batch.schema.names, places[first:last] - begin)
        if last == len(places):
            return
        begin = end


def _taken(batch, wanted: Sequence[str], places):
    """Rows of a batch, of the columns ``wanted`` that it has; they hold nothing else in memory."""
    import pyarrow as pa

    names = [name for name in batch.schema.names if name in wanted] or batch.schema.names[:1]
    return batch.select(names).take(pa.array(places, pa.int64()))


def _joint(schemas: Sequence, wanted: Sequence[str]):
    """One schema for the parts of an index, with what any of them has of ``wanted``: text, and numbers."""
    import pyarrow as pa

    known = {name for schema in schemas for name in schema.names}
    fields = [(name, _kind(name)) for name, spellings in _spellings(wanted).items() if known & set(spellings)]
    return pa.schema(fields or [("url", _kind("url"))])


def _kind(name: str):
    import pyarrow as pa

    # Texts of many rows are more than the 2 GiB that plain strings may have.
    return pa.type_for_alias(NUMBERS.get(name, "large_string"))


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


def _as_text(value) -> str | None:
    if isinstance(value, bytes):
        return texts.decode(value)
    if isinstance(value, list):  # of several captions the first
        if not any(value):
            return None
        value = next((text for text in value if isinstance(text, str) and text), value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _as_number(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _from_hdf5(path: Path, wanted: Sequence[str]) -> Callable:
    """See :class:`Reader`."""
    import pyarrow as pa

    data = _dataset(path)
    names = [name for name in wanted if name in data]

    def rows(ids):
        return pa.table({name: _arrow(data[name][ids] if len(ids) else []) for name in names})

    return rows


def _arrow(values):
    """A column of HDF5 in Arrow's types: numbers as they are, everything else as text."""
    import pyarrow as pa

    kind = getattr(values, "dtype", None)
    if kind is not None and kind.kind in "iuf":
        return pa.array(values)
    return pa.array([_as_text(value) for value in values], pa.large_string())
