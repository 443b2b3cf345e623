"""How many images a study deals with: of each class and split, before its data set exists and after."""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pandas as pd

from augbench.dataset import splits
from augbench.jobs.study_files import StudyFiles
from augbench.study import classes

AT_A_TIME = 16  # folders, since a network file system takes long to answer
UNREADABLE = (OSError, ValueError, KeyError)  # no table yet, or a damaged one, which the jobs that read it name


class StudySize(NamedTuple):
    """train : training images of each class that takes part; images : split -> images of all these classes; filled :
    what ratio 1 adds to each class of a target whose classes are topped up, else None."""

    train: tuple[int, ...]
    images: dict[str, int]
    filled: tuple[int, ...] | None = None

    @property
    def wanted(self) -> tuple[int, ...]:
        """Images that ratio 1 adds to each class."""
        return self.train if self.filled is None else self.filled

    @property
    def target(self) -> int:
        """All images of the target."""
        return sum(self.images.values())


def study_size(files: StudyFiles) -> StudySize:
    """The size of a study: of its data set where there is one, else as far as the names of the target's files tell,
    which is exact but for classes that retrieval cannot fill and images that cannot be read."""
    for size in (_size_of_data_set, _size_of_target):
        with contextlib.suppress(*UNREADABLE):
            return size(files)
    return expected_size(files)


def _size_of_data_set(files: StudyFiles) -> StudySize:
    rows = classes.kept(files.classes)
    filled = tuple(row["wanted"] for row in rows) if files.study.dataset.fill_to else None
    images = {split: _rows(files.split(split)) for split in splits.SPLITS}
    return StudySize(tuple(row["train"] for row in rows), images, filled)


def _size_of_target(files: StudyFiles) -> StudySize:
    table = pd.read_parquet(files.target("images.parquet"), columns=["class", "split"])
    images = {split: int((table["split"] == split).sum()) for split in splits.SPLITS}
    train = table[table["split"] == "train"].groupby("class").size()
    counts = tuple(train.tolist())
    return StudySize(counts, images, _filled(counts, files.study.dataset.fill_to))


def _filled(train: Sequence[int], fill_to: str | int | None) -> tuple[int, ...] | None:
    if fill_to is None:
        return None
    return tuple(classes.wanted({str(place): count for place, count in enumerate(train)}, fill_to).values())


def expected_size(files: StudyFiles) -> StudySize:
    """The size of a study before any work, by the names of its target's files."""
    study = files.study
    reader = study.target.reader
    if reader.is_built_in:
        counts, own = reader.known_counts(study.digits)
    else:
        layout = reader.layout(study.target)
        parts = [layout.train, *layout.own.values()]
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            counted = [list(pool.map(lambda key, part=part: _count(part(key)), layout.classes)) for part in parts]
        counts, own = counted[0], dict(zip(layout.own, map(sum, counted[1:]), strict=True))
    return size_of(counts, own, study.dataset)


def size_of(counts: Sequence[int], own: dict[str, int], dataset) -> StudySize:
    """The size of a study with so many images of each class to draw splits from.

    own : images of the splits that the target has itself
    """
    drawn = [splits.sizes(count, dataset, own) for count in counts]
    images = {split: sum(sizes.get(split, 0) for sizes in drawn) for split in splits.SPLITS} | own
    images["unused"] = sum(counts) - sum(sum(sizes.values()) for sizes in drawn)
    train = tuple(sizes["train"] for sizes in drawn)
    return StudySize(train, images, _filled(train, dataset.fill_to))


def _count(paths) -> int:
    return sum(1 for _ in paths)


def _rows(path: str) -> int:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(path).metadata.num_rows
