"""A Hugging Face data set's Parquet files: each row is an image and its label."""

import functools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from augbench.core import files, list_files, names
from augbench.core.files import BadInput
from augbench.images import folders, parquet_images
from augbench.images.places import Row
from augbench.study.readers.layout import HELD_OUT, Layout, Reader, split_called

LABEL = {"label": ["label", "labels", "class", "class_name", "label_name", "category", "fine_label", "target"]}
SHARD = re.compile(r"-\d+-of-\d+.*$")  # train-00000-of-00004, perhaps with a hash behind it


class HuggingFace(Reader):
    name = "huggingface"
    meaning = (
        "a Hugging Face data set's Parquet files with the columns image and label, read where they lie, and splits by "
        "the names of files or folders (train-00000-of-00004.parquet)"
    )

    def check_path(self, path):
        if not path.exists():
            raise BadInput(f"there is no folder {path}; give the folder of a data set's Parquet files")

    def fits(self, path):
        """A folder of Parquet without images beside them, or a file whose images are ``{bytes, path}``: other columns
        of bytes may be text."""
        if path.is_dir():
            return not folders.any_image(path) and bool(_parquet_files(path))
        return path.is_file() and parquet_images.is_one(path) and parquet_images.is_published(path)

    def read(self, target):
        """``*.parquet`` at any depth, with a column of images and one of labels: the numbers of names that the schema
        has (datasets' ClassLabel), numbers alone, or text."""
        path = Path(target.path)
        paths = _parquet_files(path)
        if not paths:
            raise BadInput(f"{path} has no .parquet file; give the folder of a data set's Parquet files")
        if odd := next((name for name in paths if not folders.is_text(name)), None):
            raise BadInput(f"the name of {files.printable(odd)} is not UTF-8; rename it")
        root = path if path.is_dir() else path.parent
        splits, left_out = ({paths[0]: "train"}, Counter()) if path.is_file() else _splits(target, root, paths)
        states = [(name, status.st_size, status.st_mtime_ns) for name in splits for status in [Path(name).stat()]]
        rows = _rows(path, tuple(states), tuple(splits.values()))
        own = {part: functools.partial(rows.places, part) for part in HELD_OUT if part in splits.values()}
        if path.is_dir():
            others = set(folders.files_below(path)) - set(paths)
            left_out.update(files.printable(Path(name).suffix.lower() or "without extension") for name in others)
        train = functools.partial(rows.places, "train")
        return Layout(root, rows.classes, train, own, left_out=left_out, packed=tuple(splits))


def _parquet_files(path: Path) -> list[str]:
    if path.is_file():
        return [str(path)]
    return [name for name in folders.files_below(path) if parquet_images.is_one(name)]


# --- splits ---------------------------------------------------------------------------------------------


def _splits(target, root: Path, paths: Sequence[str]) -> tuple[dict[str, str], Counter]:
    """File -> its split, all train where no name says so; and what is left out. Raises BadInput where names do not
    tell, or the files are of several data sets."""
    called = {name: _splits_named(Path(name).relative_to(root)) for name in paths}
    for name, several in called.items():
        if len(several) > 1:
            raise BadInput(f"{name} is named like the splits {' and '.join(sorted(several))}; rename it to one of them")
    left_out: Counter = Counter()
    unnamed = [name for name, splits in called.items() if not splits]
    if len(unnamed) < len(called) and unnamed:
        if target.folders != "splits":
            raise BadInput(
                f"{root} has Parquet files named like splits and others, such as {unnamed[0]}: call these train-, "
                "validation- or test-, or write `folders: splits` into `target` to leave them out"
            )
        left_out["Parquet files of no split"] += len(unnamed)
        called = {name: splits for name, splits in called.items() if splits}
    splits = {name: next(iter(splits), "train") for name, splits in called.items()}
    if "train" not in splits.values():
        named = " and ".join(sorted(set(splits.values())))
        raise BadInput(f"{root} has Parquet files named {named} but none named train; add these, or rename one")
    groups = sorted({_without_split(Path(name).relative_to(root)) for name in splits})
    if len(groups) > 1:
        raise BadInput(
            f"{root} holds the Parquet files of several data sets ({', '.join(groups[:3])}): give the folder of one, "
            f"e.g. `path: {root / groups[-1]}`"
        )
    return splits, left_out


def _splits_named(name: Path) -> set[str]:
    """The splits of which the name of a file or its folders speaks: ``test/0000``, ``cifar10-train``."""
    words = [word for word in re.split(r"[\W_0-9]+", SHARD.sub("", name.stem)) if word]
    return {split for word in (*words, *name.parent.parts) if (split := split_called(word))}


def _without_split(name: Path) -> str:
    """A file's folder, without those that are named like splits."""
    return "/".join(part for part in name.parent.parts if not split_called(part)) or "."


# --- labels ---------------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """How a file labels its images: a column, the names of its numbers or None, and whether it holds numbers."""

    column: str
    names: tuple[str, ...] | None
    numbers: bool


@dataclass(frozen=True)
class Rows:
    """The rows of all files, numbered through, by split and class; a million of them are a column of numbers."""

    files: tuple[str, ...]
    ends: np.ndarray  # int64 (files,): rows of the files up to each one's last
    order: np.ndarray  # int64 (rows,)
    stretches: dict[tuple[str, str], tuple[int, int]]  # split and class -> the first in ``order``, one after the last
    classes: dict[str, str]

    def places(self, part: str, key: str) -> Iterator[Row]:
        first, last = self.stretches.get((part, key), (0, 0))
        for row in self.order[first:last].tolist():
            file = int(np.searchsorted(self.ends, row, side="right"))
            yield Row(self.files[file], row - int(self.ends[file - 1] if file else 0))


@functools.lru_cache(maxsize=4)
def _rows(path: Path, states: tuple[tuple[str, int, int], ...], splits: tuple[str, ...]) -> Rows:
    """The labels of all rows, read once for each state of the files. Raises BadInput naming what cannot be used."""
    import pyarrow as pa

    paths = tuple(name for name, _, _ in states)
    known = {name: _labels_of(name) for name in paths}
    first = known[paths[0]]
    if other := next((name for name in paths if known[name] != first), None):
        raise BadInput(
            f"{paths[0]} and {other} do not label their images alike (columns, types or names of classes); give the "
            "folder of one data set as `path`"
        )
    columns = [_keys(name, first) for name in paths]
    ends = np.cumsum([len(column) for column in columns])
    if not ends[-1]:
        raise BadInput(f"{path} has no rows; each holds an image and its label")
    encoded: Any = pa.chunked_array(columns).dictionary_encode().combine_chunks()
    keys = encoded.dictionary.to_pylist()
    classes = _in_order(keys, first)
    ranks = {key: rank for rank, key in enumerate(classes)}
    parts = sorted(set(splits))
    part = np.repeat([parts.index(split) for split in splits], [len(column) for column in columns])
    group = part * len(classes) + np.array([ranks[key] for key in keys])[encoded.indices.to_numpy()]
    order = np.argsort(group, kind="stable")
    groups, firsts, counts = np.unique(group[order], return_index=True, return_counts=True)
    stretches = {
        (parts[number // len(classes)], classes[number % len(classes)]): (begin, begin + count)
        for number, begin, count in zip(groups.tolist(), firsts.tolist(), counts.tolist(), strict=True)
    }
    for split, key in stretches:
        if ("train", key) not in stretches:
            raise BadInput(f"the {split} split of {path} has the class {key!r}, which its train split does not have")
    return Rows(paths, ends, order, stretches, {key: key for key in classes})


def _labels_of(name: str) -> Labels:
    """Raises BadInput when there is no column of images or of labels, or of what is no class."""
    import pyarrow as pa

    schema = list_files.open_parquet(name).schema_arrow
    image = parquet_images.image_column(name, schema)
    others = [field.name for field in schema if field.name != image]
    column = names.first_match(others, LABEL).get("label")
    if column is None:
        raise BadInput(
            f"{name} has no column of labels (it has {files.printable(', '.join(schema.names))}): call it label; it "
            "holds the numbers or names of classes"
        )
    kind = schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise BadInput(f"{name}: its column {column!r} holds {kind}; it should hold one number or name of a class")
    numbers = pa.types.is_integer(kind)
    return Labels(column, _names(name, schema, column) if numbers else None, numbers)


def _names(name: str, schema, column: str) -> tuple[str, ...] | None:
    """The names of a column's numbers, of which the library datasets keeps note in the schema."""
    try:
        note = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        known = note.get("info", {}).get("features", {}).get(column, {}).get("names")
    except (ValueError, AttributeError):
        return None
    if not known:
        return None
    keys = tuple(str(key).strip() for key in known)
    if twice := [key for key, count in Counter(keys).items() if count > 1 or not key]:
        raise BadInput(f"{name}: two classes of its column {column!r} are called {twice[0]!r}; each needs its own name")
    return keys


def _keys(name: str, labels: Labels):
    """The class of each row of a file, as Arrow's text. Raises BadInput naming a row that has none."""
    import pyarrow as pa

    compute = list_files.compute
    column = list_files.open_parquet(name).read(columns=[labels.column])[labels.column].combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    keys = column.cast(pa.int64() if labels.numbers else pa.string())
    if labels.numbers:
        last = len(labels.names) - 1 if labels.names else np.iinfo(np.int64).max
        absent = compute.or_(compute.less(keys, 0), compute.greater(keys, last))  # datasets writes -1 for no label
    else:
        keys = compute.utf8_trim_whitespace(keys)
        absent = compute.equal(keys, "")
    row = compute.index(compute.fill_null(absent, True), True).as_py()
    if row >= 0:
        said = column[row].as_py()
        raise BadInput(
            f"row {row} (counted from 0) of {name} is of no class: its {labels.column} is "
            f"{'null' if said is None else repr(said)}; take away such rows, or the file if it has no labels"
        )
    if labels.names:
        return pa.array(labels.names, pa.string()).take(keys)
    return keys.cast(pa.string())


def _in_order(keys: Sequence[str], labels: Labels) -> list[str]:
    """Classes in the order of their numbers, or of their names where they are text."""
    if labels.names:
        return sorted(keys, key={key: number for number, key in enumerate(labels.names)}.__getitem__)
    return sorted(keys, key=int) if labels.numbers else sorted(keys)
