"""How many images a study deals with: of each class and split, before its data set exists and after."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from augbench.dataset import splits
from augbench.jobs.study_files import StudyFiles
from augbench.study import classes

AT_A_TIME = 16  # folders, since a network file system takes long to answer


class StudySize(NamedTuple):
    """train : training images of each class that takes part; images : split -> images of all these classes."""

    train: tuple[int, ...]
    images: dict[str, int]

    @property
    def target(self) -> int:
        """All images of the target."""
        return sum(self.images.values())


def study_size(files: StudyFiles) -> StudySize:
    """The size of a study: of its data set where there is one, else as far as the names of the target's files tell,
    which is exact but for classes that retrieval cannot fill and images that cannot be read."""
    tables = {split: files.split(split) for split in splits.SPLITS}
    if all(Path(path).is_file() for path in [files.classes, *tables.values()]):
        train = tuple(row["train"] for row in classes.kept(files.classes))
        return StudySize(train, {split: _rows(path) for split, path in tables.items()})
    if Path(table := files.target("images.parquet")).is_file():
        counts = pd.read_parquet(table, columns=["class", "split"]).groupby(["split", "class"]).size()
        images = {split: int(counts.get(split, pd.Series(dtype=int)).sum()) for split in splits.SPLITS}
        return StudySize(tuple(int(count) for count in counts.get("train", ())), images)
    return expected_size(files)


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
            counts = [list(pool.map(lambda key, part=part: _count(part(key)), layout.classes)) for part in parts]
        counts, own = counts[0], dict(zip(layout.own, map(sum, counts[1:]), strict=True))
    return size_of(counts, own, study.dataset)


def size_of(counts: Sequence[int], own: dict[str, int], dataset) -> StudySize:
    """The size of a study with so many images of each class to draw splits from.

    own : images of the splits that the target has itself
    """
    drawn = [splits.sizes(count, dataset, own) for count in counts]
    images = {split: sum(sizes.get(split, 0) for sizes in drawn) for split in splits.SPLITS} | own
    images["unused"] = sum(counts) - sum(sum(sizes.values()) for sizes in drawn)
    return StudySize(tuple(sizes["train"] for sizes in drawn), images)


def _count(paths) -> int:
    return sum(1 for _ in paths)


def _rows(path: str) -> int:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(path).metadata.num_rows
