"""Parquet files of images, as Hugging Face's datasets are published: each row has an encoded image, and what is said of
it. They are read like shards; a row's number takes the place of an offset.
"""

import bisect
import collections
import functools
import itertools
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from augbench.core import files, list_files, names
from augbench.core.files import BadInput
from augbench.core.list_files import compute
from augbench.images.shards import Member

SUFFIX = ".parquet"
IMAGE = {"image": ["image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "image_bytes", "bytes"]}
BATCH = 32  # rows in memory at a time


def is_one(path: str | Path) -> bool:
    """Whether a file of images is one of Parquet, rather than a tar."""
    return str(path).endswith(SUFFIX)


def image_column(path: str | Path, schema: pa.Schema) -> str:
    """The column that holds the images, ``{bytes, path}`` or bytes alone. Raises BadInput when there is none, or it is
    not known which of several."""
    able = [field.name for field in schema if _holds_images(field.type)]
    named = names.first_match(able, IMAGE).get("image")
    if named is None and len(able) != 1:
        has = ", ".join(f"{files.printable(field.name)} ({str(field.type)[:40]})" for field in schema)
        raise BadInput(
            f"{files.printable(path)} has {'several columns' if able else 'no column'} of images, and none called image"
            f" (it has {has}); its images are `image: {{bytes, path}}` or bytes"
        )
    return named or able[0]


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def is_published(path: str | Path) -> bool:
    """Whether a file has a column of images as the library datasets writes them, ``{bytes, path}``."""
    kinds = [field.type for field in list_files.open_parquet(path).schema_arrow]
    return any(pa.types.is_struct(kind) and _holds_images(kind) for kind in kinds)


def count_missing(path: str | Path) -> tuple[int, int]:
    """The rows of a file without the bytes of an image, as far as its own statistics tell, and all its rows."""
    file = list_files.open_parquet(path)
    image, missing = image_column(path, file.schema_arrow), 0
    for group in map(file.metadata.row_group, range(file.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema in (image, f"{image}.bytes") and chunk.statistics is not None:
                missing += chunk.statistics.null_count or 0
    return missing, file.metadata.num_rows


def largest_row_group(path: str | Path) -> tuple[int, int]:
    """The images of a file's largest row group, and their bytes as they are stored."""
    file = list_files.open_parquet(path)
    image, sizes = image_column(path, file.schema_arrow), [(0, 0)]
    for group in map(file.metadata.row_group, range(file.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        stored = sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == image)
        sizes.append((group.num_rows, stored))
    return max(sizes, key=lambda size: size[1])


def check(path: str | Path, columns: Mapping[str, Sequence[str]]) -> int:
    """The rows of a file. Raises BadInput unless it has images, and its captions are text; ``columns`` : name ->
    spellings."""
    file = list_files.open_parquet(path)
    image_column(path, file.schema_arrow)
    captions = names.first_match(_others(path, file.schema_arrow), {"caption": columns["caption"]}).values()
    list_files.check_types(file, list(captions), path, captions)
    return file.metadata.num_rows


def _others(path: str | Path, schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name != image_column(path, schema)]


def samples(path: str | Path, columns: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, dict[str, Member]]]:
    """The rows of a file as samples of a shard, see :func:`augbench.images.shards.samples`: the image as ``jpg``, of
    whatever format it is, its caption as ``txt`` and what else is said of it as ``json``.

    ``columns`` : name -> its spellings; the JSON has these names. The place of an image is the number of its row.
    """
    opened = list_files.open_parquet(path)
    schema = opened.schema_arrow
    image, spelt = image_column(path, schema), names.first_match(_others(path, schema), columns)
    plain = [field.name for field in schema if list_files.is_text(field.type) and not _holds_images(field.type)]
    called = {name: name for name in plain if name not in spelt.values()} | {spelt[name]: name for name in spelt}
    row = 0
    for batch in _batches(path, opened.num_row_groups, [image, *called]):
        said = {name: _values(name, batch.column(column)) for column, name in called.items()}
        for place, data in enumerate(_bytes(batch.column(image)).to_pylist()):
            facts = {name: values[place] for name, values in said.items() if values[place] is not None}
            members = {} if data is None else {"jpg": Member(data, row, len(data))}
            if caption := facts.pop("caption", None):
                members["txt"] = Member(str(caption).encode("utf-8", "replace"), 0, 0)
            text = json.dumps(facts, default=str).encode()
            yield str(row), members | {"json": Member(text, 0, len(text))}
            row += 1


def _batches(path: str | Path, groups: int | Sequence[int], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Rows of some row groups, as they stream by. Raises BadInput where the file is damaged."""
    chosen = range(groups) if isinstance(groups, int) else groups
    try:
        # Mapped: else a whole row group's column would be read at once, and some have gigabytes.
        with pq.ParquetFile(path, memory_map=True) as file:
            yield from file.iter_batches(BATCH, row_groups=list(chosen), columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{files.printable(path)} is damaged: {str(error)[:200]}; copy it again") from None


def _bytes(column: Any) -> Any:
    """The bytes of a column of images; null where there is no image."""
    return compute.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _values(name: str, column: Any) -> list:
    """Values of a column; of several captions of an image the first."""
    if name == "caption" or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return list_files.text(pa.chunked_array([column])).to_pylist()
    return column.to_pylist()


def load(path: str | Path, row: int) -> bytes:
    """The encoded image of a row. Those before it in its row group stream by, but for what an earlier call has read: to
    load all rows of a row group in about their order, :func:`reading_order`, reads it once."""
    try:
        status = os.stat(path)  # noqa: PTH116 (of each of a million images)
    except OSError as error:
        raise BadInput(f"{files.printable(path)} cannot be read: {error.strerror}") from None
    file = _opened(str(path), status.st_size, status.st_mtime_ns)
    if row >= file.ends[-1]:
        raise BadInput(f"{files.printable(path)} has no row {row}; it has changed since it was read")
    return _LAST.load(file, row) or b""


def reading_order(paths: pa.Array, rows: pa.Array) -> np.ndarray:
    """The order, int64 (n,), in which images are best loaded: those of Parquet files as they lie; others, and all where
    there are none of Parquet, stay as they come."""
    packed = compute.and_(compute.ends_with(paths, SUFFIX), compute.is_valid(rows))
    if not compute.any(packed).as_py():
        return np.arange(len(paths))
    keys = {"packed": packed, "path": compute.if_else(packed, paths, None), "row": compute.if_else(packed, rows, None)}
    order = compute.sort_indices(pa.table(keys), [(name, "ascending") for name in keys])
    return order.to_numpy().astype(np.int64)


class _File(NamedTuple):
    """A state of a file: its column of images, and the rows up to the end of each row group."""

    path: str
    size: int
    changed: int
    column: str
    ends: tuple[int, ...]


@functools.lru_cache(maxsize=1000)
def _opened(path: str, size: int, changed: int) -> _File:
    file = list_files.open_parquet(path)
    counts = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
    ends = tuple(itertools.accumulate(counts)) or (0,)
    return _File(path, size, changed, image_column(path, file.schema_arrow), ends)


class _RowGroup:
    """The row group of which a row was loaded last, and how far it has streamed by; threads take turns.

    Threads that load rows in their order are a few rows apart, so the batch before the last is kept, too.
    """

    def __init__(self):
        self.lock, self.file, self.group, self.end = threading.Lock(), None, 0, 0
        self.batches: Iterator = iter(())
        self.recent: collections.deque = collections.deque(maxlen=2)  # first row and images of a batch

    def load(self, file: _File, row: int) -> bytes | None:
        group = bisect.bisect_right(file.ends, row)
        with self.lock:
            if (file, group) != (self.file, self.group) or row < self.recent[0][0]:
                self._begin(file, group)
            while row >= self.end:
                self._advance(file, row)
            first, images = next(each for each in self.recent if row < each[0] + len(each[1]))
            return images[row - first].as_py()

    def _begin(self, file: _File, group: int) -> None:
        self.file, self.group, self.end = file, group, file.ends[group - 1] if group else 0
        self.batches = _batches(file.path, [group], [file.column])
        self.recent.clear()
        self.recent.append((self.end, ()))

    def _advance(self, file: _File, row: int) -> None:
        try:
            images = _bytes(next(self.batches).column(0))
        except (StopIteration, BadInput) as error:
            self.file = None
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{files.printable(file.path)} ends before its row {row}; copy it again") from None
        self.recent.append((self.end, images))
        self.end += len(images)


_LAST = _RowGroup()


def _forget() -> None:
    """A process that was forked reads its own: in its parent, a thread may have been reading."""
    global _LAST
    _LAST = _RowGroup()


os.register_at_fork(after_in_child=_forget)
