"""A list that names the images, with their classes and perhaps their splits."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augbench.core import list_files
from augbench.core.files import BadInput
from augbench.study.readers.layout import HELD_OUT, Layout, Reader, split_called

LIST = {  # columns of a list, and what else people call them
    "path": ["file", "filename", "filepath", "image", "imagepath", "imagefile", "imagename", "img", "imgpath"],
    "class": ["classname", "label", "labelname", "category", "categoryname", "target"],
    "split": ["set", "subset", "partition"],
}


class ListFile(Reader):
    name = "list"
    meaning = "a CSV or Parquet file with the columns path, class and perhaps split (train, validation, test)"
    names_files = True

    def check_path(self, path):
        if not path.is_file():
            raise BadInput(f"there is no file {path}; it should have the columns path,class")

    def fits(self, path):
        return path.is_file()

    def read(self, target):
        """A CSV or Parquet file with path (relative to it), class and perhaps split: train, validation or test."""
        source = Path(target.path)
        status = source.stat()
        rows = _rows(source, status.st_size, status.st_mtime_ns)

        def files_in(part: str) -> Callable[[str], Iterable[Path]]:
            return lambda key: (source.parent / path for path in rows.paths(part, key))

        left_out = Counter({"rows that say what another says": rows.repeated} if rows.repeated else {})
        own = {part: files_in(part) for part in rows.own}
        return Layout(source.parent, {key: key for key in rows.classes}, files_in("train"), own, left_out=left_out)


@dataclass(frozen=True)
class Rows:
    """The rows of a list, sorted by split and class; ten million of them are a few columns of numbers and text."""

    files: Any  # pyarrow chunked array of text, sorted
    stretches: dict[tuple[str, str], tuple[int, int]]  # split and class -> first row and the one after the last
    repeated: int  # rows that say what another row says

    @property
    def classes(self) -> list[str]:
        return sorted({key for _, key in self.stretches})

    @property
    def own(self) -> list[str]:
        return [part for part in HELD_OUT if any(part == split for split, _ in self.stretches)]

    def paths(self, part: str, key: str) -> Iterator[str]:
        first, last = self.stretches.get((part, key), (0, 0))
        return (path.as_py() for path in self.files.slice(first, last - first))


@functools.lru_cache(maxsize=4)
def _rows(source: Path, size: int, changed: int) -> Rows:
    """The rows of a list, read once for each of its states. Raises BadInput naming a row that cannot be used."""
    import pyarrow as pa

    table = list_files.read(source, LIST, ["path", "class"])
    if not table.num_rows:
        raise BadInput(f"{source} has no rows; each names an image: path,class")
    for name in ("path", "class"):
        empty = list_files.compute.index(table[name], "").as_py()
        if empty >= 0:
            raise BadInput(f"{source}: row {empty + 1} below the column names has no {name}")
    path = list_files.compute.replace_substring_regex(slashes(source, table["path"]), r"(^|/)(\./)+", r"\1")
    split = _split_column(source, table)
    table = pa.table({"split": split, "class": table["class"].cast(pa.string()), "path": path})
    unique = table.group_by(["split", "class", "path"]).aggregate([])
    _refuse_contradiction(source, unique)
    unique = unique.sort_by([(name, "ascending") for name in ("split", "class", "path")])
    counts = unique.group_by(["split", "class"], use_threads=False).aggregate([([], "count_all")])
    ends = itertools.accumulate(counts["count_all"].to_pylist())
    keys = zip(counts["split"].to_pylist(), counts["class"].to_pylist(), strict=True)
    stretches = {
        key: (end - count, end) for key, end, count in zip(keys, ends, counts["count_all"].to_pylist(), strict=True)
    }
    return Rows(unique["path"], stretches, table.num_rows - unique.num_rows)


def slashes(source: Path, paths):
    """Paths with ``/``, where Windows wrote ``\\`` and there is no file of that very name."""
    first = list_files.compute.index(list_files.compute.match_substring(paths, "\\"), True).as_py()
    if first < 0 or (source.parent / paths[first].as_py()).exists():
        return paths
    return list_files.compute.replace_substring(paths, "\\", "/")


def _split_column(source: Path, table):
    """The split of each row, by any of its names; all train where the list does not say."""
    import pyarrow as pa

    if "split" not in table.column_names:
        return pa.chunked_array([pa.array(["train"] * table.num_rows)])
    encoded = table["split"].dictionary_encode().combine_chunks()
    names = encoded.dictionary.to_pylist()
    for name in names:
        if split_called(name) is None:
            row = encoded.indices.index(names.index(name)).as_py()
            raise BadInput(
                f"{source}: row {row + 1} below the column names: a split is train, validation or test, not {name!r}"
            )
    return pa.chunked_array([pa.array([split_called(name) for name in names]).take(encoded.indices)])


def _refuse_contradiction(source: Path, rows) -> None:
    counts = rows.group_by(["path"]).aggregate([([], "count_all")])
    twice = counts.filter(list_files.compute.greater(counts["count_all"], 1))
    if twice.num_rows:
        path = min(twice["path"].to_pylist()[:1000])
        said = sorted(
            f"{row['class']} ({row['split']})"
            for row in rows.filter(list_files.compute.equal(rows["path"], path)).to_pylist()
        )
        raise BadInput(
            f"{source} gives different classes or splits for {path}: {' and '.join(said[:3])}; keep one of these rows"
        )
