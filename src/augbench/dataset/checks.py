"""What can be known of a target before any work starts."""

import itertools
import os
import re
from collections import Counter
from pathlib import Path

from augbench.core import files
from augbench.core.files import BadInput
from augbench.dataset.class_table import class_table
from augbench.images import folders, parquet_images, places
from augbench.study.readers import Layout
from augbench.study.readers.layout import same_name

LOOKED_AT = 10_000  # files of a list of which a plan asks whether they are there
LISTED = 100_000  # images of a target that a plan lists
IN_MEMORY = 200e6  # bytes of encoded images, which a classifier keeps in memory once they are decoded
LARGE_ROW_GROUP = 32e6  # bytes of which half take longer to read than an image takes to decode


def check(target) -> None:
    """Raise ValueError with one sentence when there can be no study of the target."""
    layout = target.reader.layout(target)
    if len(layout.classes) < 2:
        advice = (
            "; its images lie in no class folders: put them into CLASS/, or write a list with the columns path,class"
        )
        flat = "images beside the class folders" in layout.left_out
        raise BadInput(
            f"{target.path} has {len(layout.classes)} classes; at least two are needed{advice if flat else ''}"
        )
    for key in layout.classes:
        layout.left_out.clear()
        if next(iter(layout.train(key)), None) is None:
            instead = f" but {kinds}" if (kinds := folders.left_out_message(layout.left_out)) else ""
            raise BadInput(f"the class {key} of {target.path} holds no image{instead}; remove it or fill it")
    for part, files_of in layout.own.items():
        if all(next(iter(files_of(key)), None) is None for key in layout.classes):
            raise BadInput(f"the {part} split of {target.path} holds no image; remove it, and augbench splits one off")
    if target.reader.names_files:
        _check_paths(layout, target)
    for file in layout.packed:
        _check_packed(file, target.unreadable)
    names = {}
    for key, row in class_table(target).set_index("class").iterrows():
        same = names.setdefault(same_name(row["lemmas"]).casefold(), key)
        if same != key and layout.names is None:  # two of ImageNet's classes are both called crane
            alike = ", in another Unicode form" if same_name(key) == same_name(same) else ""
            raise BadInput(
                f"the classes {same} and {key} have the same name {row['lemmas']!r}{alike}; join them, or tell them "
                "apart by a CSV with columns class,lemmas and the key `classes`"
            )


def _check_paths(layout: Layout, target) -> None:
    """Raise BadInput when none of a list's first files is there, or, where it is short, one is not."""
    parts = [layout.train, *layout.own.values()]
    every = (Path(places.file_of(place)) for part in parts for key in layout.classes for place in part(key))
    paths = list(itertools.islice(every, LOOKED_AT))
    missing = [path for path in paths if not path.is_file()]
    if missing and re.match("[a-z]+://?", os.path.relpath(missing[0], layout.root)):
        raise BadInput(f"{target.path} lists URLs, not files; download the images first")
    if len(missing) == len(paths):
        raise BadInput(
            f"there is no file {files.printable(missing[0])}, nor any other of {target.path}; its paths are relative "
            f"to {layout.root}"
        )
    if missing and target.unreadable == "stop":
        raise BadInput(
            f"there is no file {files.printable(missing[0])}, which {target.path} names ({len(missing)} of "
            f"{len(paths)} files are missing); remove these rows, or set `unreadable: skip`"
        )


def _check_packed(file: str, unreadable: str) -> None:
    """Raise BadInput when a file of images lacks some, as far as its statistics tell."""
    missing, rows = parquet_images.count_missing(file)
    if missing and missing == rows:
        raise BadInput(
            f"{file} has the bytes of none of its images; write it so that they are in it, as datasets' `push_to_hub` "
            "does"
        )
    if missing and unreadable == "stop":
        raise BadInput(
            f"{missing} of the {rows} rows of {file} have no image; remove these rows, or set `unreadable: skip`"
        )


def large_row_groups(target) -> str:
    """A sentence on a target's Parquet files, where images drawn at random are slow to read; else empty."""
    files = target.reader.layout(target).packed
    if sum(Path(file).stat().st_size for file in files) < IN_MEMORY:
        return ""
    count, size = parquet_images.largest_row_group(files[0])
    if size < LARGE_ROW_GROUP:
        return ""
    return (
        f"{files[0]} has row groups of {count:,} images ({size / 1e6:,.0f} MB): a classifier draws images at random, "
        "and each costs the reading of half a group; in groups of 100 they are read quicker, "
        "`pyarrow.parquet.write_table(table, file, row_group_size=100)`"
    )


def left_out(target) -> Counter:
    """Counts of the files that are ignored among a target's first 100,000 images, by kind."""
    layout = target.reader.layout(target)
    every = (file for part in (layout.train, *layout.own.values()) for key in layout.classes for file in part(key))
    for _ in itertools.islice(every, LISTED):
        pass
    return layout.left_out
