"""Tables that people write, CSV or Parquet: whatever their separator, encoding and spelling of the columns."""

import csv
import gzip
import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from augbench.core import files, texts, tsv_files
from augbench.core.files import BadInput
from augbench.core.names import first_match, plain

compute: Any = pyarrow.compute  # it makes its functions as it is imported, where no type checker sees them

SEPARATORS = ",;\t|"
HEAD = 1 << 20  # bytes in which the first row ends


def read(path: str | Path, columns: Mapping[str, Sequence[str]], needed: Sequence[str]) -> pa.Table:
    """The rows of a CSV or Parquet file as text without white space around it; an empty cell is empty text.

    A column is known by its name or one of its synonyms, whatever its letters' case and with or without spaces, ``_``
    and ``-``. The text ``NA``, ``None`` or ``null`` is text. CSV is separated by commas, semicolons, tabs or bars, in
    UTF-8, or UTF-16 with a byte order mark, perhaps compressed (.gz).

    Parameters
    ----------
    columns : name -> its synonyms; columns of the table, in this order, as far as the file has them
    needed : names that the file must have

    Raises BadInput with one sentence that names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"there is no file {files.printable(path)}; it should have the columns {','.join(needed)}")
    with open(path, "rb") as handle:
        head = handle.read(4)
    try:
        table = _parquet(path, columns, needed) if head == b"PAR1" else _csv(path, columns, needed)
    except pa.ArrowException as error:
        raise BadInput(f"{files.printable(path)} cannot be read: {_first_line(error)}") from None
    return pa.table({name: compute.utf8_trim_whitespace(table[name]) for name in table.column_names})


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


# --- columns --------------------------------------------------------------------------------------------


def match(names: Sequence[str], columns: Mapping[str, Sequence[str]], path: str | Path) -> dict[str, int]:
    """Name -> place among a file's ``names``; a column that is called so goes before synonyms.

    Raises BadInput when several could be meant.
    """
    places = {}
    for name, synonyms in columns.items():
        for known in ([name], synonyms):
            same = [place for place, spelt in enumerate(names) if plain(spelt) in map(plain, known)]
            if len(same) > 1:
                both = " and ".join(repr(names[place]) for place in same)
                raise BadInput(
                    f"{files.printable(path)}: its columns {both} could both be {name!r}; call one of them {name}, or "
                    "remove one"
                )
            if same:
                places[name] = same[0]
                break
    return places


def _complete(places: Mapping[str, int], needed: Sequence[str], names: Sequence[str], path: Path) -> None:
    if missing := [name for name in needed if name not in places]:
        raise BadInput(
            f"{files.printable(path)} needs the columns {','.join(needed)}; {', '.join(missing)} is missing (its first "
            f"row has {', '.join(map(repr, names[:20])) or 'nothing'})"
        )


# --- CSV ------------------------------------------------------------------------------------------------


def _csv(path: Path, columns: Mapping[str, Sequence[str]], needed: Sequence[str]) -> pa.Table:
    """A CSV file's columns as text, parsed by Arrow as it streams by."""
    from pyarrow import csv as arrow

    try:
        with _open(path) as handle:
            head = handle.read(HEAD)
    except (OSError, EOFError) as error:
        raise BadInput(f"cannot read {files.printable(path)}: {error}") from None
    _refuse_other_kinds(path, head)
    codec = texts.encoding(head)
    lines = head.decode(codec, "ignore").removeprefix("\ufeff").splitlines()
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise BadInput(f"{files.printable(path)} is empty; its first row should name the columns {','.join(needed)}")
    if hint := re.fullmatch(r'"?sep=(.)"?', lines[first].strip()):  # what Excel writes for itself
        separators, first = hint[1], first + 1
    else:
        separators = SEPARATORS
    header = lines[first] if first < len(lines) else ""
    separator, names = _header(header, separators, columns, needed, path)
    places = match(names, columns, path)
    _complete(places, needed, names, path)
    if first + 1 >= len(lines):
        return pa.table({name: pa.array([], pa.string()) for name in places})
    with _open(path) as handle:
        try:
            table = arrow.read_csv(
                handle,
                read_options=arrow.ReadOptions(
                    encoding="utf8" if codec == "utf-8" else codec.removesuffix("-le").removesuffix("-be"),
                    column_names=[str(place) for place in range(len(names))],
                    skip_rows=first + 1,
                ),
                parse_options=arrow.ParseOptions(
                    delimiter=separator,
                    newlines_in_values=True,
                ),
                convert_options=arrow.ConvertOptions(
                    include_columns=[str(place) for place in places.values()],
                    column_types={str(place): pa.string() for place in places.values()},
                    strings_can_be_null=False,
                    null_values=[],
                ),
            )
        except (pa.ArrowInvalid, UnicodeError) as error:
            if path.suffix != ".gz":
                texts.read(path)  # says in which line
            raise BadInput(f"{files.printable(path)} {_odd_row(error, separator)}") from None
    return table.rename_columns(list(places))


def _odd_row(error: Exception, separator: str) -> str:
    """What is wrong with a CSV, from what Arrow says of it."""
    if row := re.search(r"Expected (\d+) columns, got (\d+): (.*)", str(error)):
        return (
            f"has {row[1]} columns, but {row[2]} cells in the row {row[3][:80]!r}; put a cell that holds {separator!r} "
            "into quotation marks"
        )
    return f"cannot be read as CSV: {_first_line(error)}"


def _open(path: Path):
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    kinds = {
        b"PK\x03\x04": "an Excel workbook or a zip archive",
        b"%PDF": "a PDF",
        b"\xd0\xcf\x11\xe0": "an old Excel file",
    }
    for mark, kind in kinds.items():
        if head.startswith(mark):
            raise BadInput(f"{files.printable(path)} is {kind}; save it as CSV in UTF-8")
    if head.startswith(files.POINTER):
        raise BadInput(f"{files.printable(path)} is a Git LFS pointer; fetch the file itself with `git lfs pull`")
    if head.lstrip()[:1] in (b"{", b"["):
        raise BadInput(f"{files.printable(path)} is JSON; write a CSV or Parquet file")
    if texts.encoding(head) == "utf-8" and b"\0" in head:
        raise BadInput(f"{files.printable(path)} is not text: it holds zero bytes; save it as CSV in UTF-8")


def _header(
    line: str, separators: str, columns: Mapping[str, Sequence[str]], needed: Sequence[str], path: Path
) -> tuple[str, list[str]]:
    """Separator and names of a first row: the separator by which it has the columns ``needed``, else the most cells."""
    rows = {}
    for separator in separators:
        try:
            rows[separator] = [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
        except csv.Error as error:
            raise BadInput(f"{files.printable(path)} cannot be read as CSV: {error}") from None
    for separator, names in rows.items():
        if set(needed) <= match(names, columns, path).keys():
            return separator, names
    return max(rows.items(), key=lambda item: len(item[1]))


# --- Parquet --------------------------------------------------------------------------------------------


def _parquet(path: Path, columns: Mapping[str, Sequence[str]], needed: Sequence[str]) -> pa.Table:
    file = open_parquet(path)
    names = file.schema_arrow.names
    places = match(names, columns, path)
    _complete(places, needed, names, path)
    check_types(file, [names[place] for place in places.values()], path)
    table = file.read(columns=[names[place] for place in places.values()])
    return pa.table({name: compute.fill_null(text(table[names[place]]), "") for name, place in places.items()})


def open_parquet(path: str | Path) -> pq.ParquetFile:
    """A Parquet file, of which only the end has been read. Raises BadInput saying what the file is instead."""
    shown = files.printable(path)
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        try:
            with open(path, "rb") as handle:
                head = handle.read(64)
        except OSError as reason:
            raise BadInput(f"cannot read {shown}: {reason.strerror}") from None
        if head.startswith(files.POINTER):
            problem = "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"
        elif not head:
            problem = "it is empty"
        elif head.startswith(b"PAR1"):
            problem = f"it is damaged or cut off ({_first_line(error)}); copy it again"
        else:
            problem = "write it with pandas' to_parquet"
        raise BadInput(f"{shown} is not a Parquet file: {problem}") from None


def check_types(file: pq.ParquetFile, names: Sequence[str], path: str | Path, lists: Collection[str] = ()) -> None:
    """Raise BadInput when a column holds what is no text and no number, or there are two of its name. Those in
    ``lists`` may hold lists of them, see :func:`text`."""
    for name in names:
        if file.schema_arrow.names.count(name) > 1:
            raise BadInput(
                f"{files.printable(path)} has several columns {name!r}; keep one of them, or rename the others"
            )
        kind = _value_type(file.schema_arrow.field(name).type)
        if not is_text(kind.value_type if name in lists and is_list(kind) else kind):
            raise BadInput(f"{files.printable(path)}: its column {name!r} holds {kind}; it should hold text")


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of a type holds text, or what can be written as it."""
    return any(
        known(kind)
        for known in (
            pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary,
            pa.types.is_fixed_size_binary, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal,
            pa.types.is_boolean, pa.types.is_null, pa.types.is_temporal,
        )
    )  # fmt: skip


def text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column whose type passed :func:`check_types` as text; what is missing stays null, 3.0 is ``3``. Of a
    list it is the first that is there: some captions come as several of an image."""
    kind = column.type
    if is_list(kind):
        values = (next((value for value in row or () if value not in (None, "")), None) for row in column.to_pylist())
        return text(pa.chunked_array([pa.array(values, kind.value_type)]))
    if pa.types.is_dictionary(kind):
        return text(column.cast(kind.value_type))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        values = (None if value is None else texts.decode(value) for value in column.to_pylist())
        return pa.chunked_array([pa.array(values, pa.string())])
    if pa.types.is_floating(kind):
        values = (_number(value) for value in column.to_pylist())
        return pa.chunked_array([pa.array(values, pa.string())])
    return column.cast(pa.string())


def _number(value: float | None) -> str | None:
    if value is None or math.isnan(value):
        return None
    return str(int(value)) if float(value).is_integer() else str(value)


def count_rows(path: str | Path, columns: Mapping[str, Sequence[str]]) -> int:
    """The rows of a Parquet or TSV file."""
    return tsv_files.count(path, columns) if tsv_files.is_one(path) else open_parquet(path).metadata.num_rows


def rows(paths: Sequence[str | Path], start: int, stop: int, columns: Mapping[str, Sequence[str]]) -> Iterator[dict]:
    """Rows ``start`` to ``stop``, as far as there are so many, of Parquet and TSV files one after the other, as dicts
    from each of ``columns`` to text or None; of Parquet only the parts that hold them are read.

    A file lacks a column, or calls it otherwise, as it pleases.
    """
    for path in paths:
        count = count_rows(path, columns)
        first, last = max(0, start), min(stop, count)
        if first < last and tsv_files.is_one(path):
            yield from tsv_files.rows(path, first, last, columns)
        elif first < last:
            yield from _rows_of(open_parquet(path), path, first, last, columns)
        start, stop = start - count, stop - count
        if stop <= 0:
            return


def _rows_of(file: pq.ParquetFile, path, start: int, stop: int, columns: Mapping[str, Sequence[str]]) -> Iterator[dict]:
    names = file.schema_arrow.names
    places = first_match(names, columns)
    check_types(file, list(places.values()), path, [places.get("caption", "")])
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    ends = list(itertools.accumulate(sizes))
    groups = [number for number, end in enumerate(ends) if end > start and end - sizes[number] < stop]
    offset = ends[groups[0]] - sizes[groups[0]]
    try:
        table = file.read_row_groups(groups, columns=list(places.values()))
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{files.printable(path)} is damaged: {_first_line(error)}") from None
    table = table.slice(start - offset, stop - start)
    values = {name: text(table[column]).to_pylist() for name, column in places.items()}
    for number in range(table.num_rows):
        yield {name: values[name][number] if name in values else None for name in columns}
