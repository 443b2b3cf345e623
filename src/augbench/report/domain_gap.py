"""The domain gap: how far a method's added images are from real ones, in the eyes of a classifier of real images.

That classifier, the judge, knows no image that a method adds or starts from: it would know these by heart.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from augbench import images
from augbench.core import files, resume
from augbench.core.seeds import derive, generator
from augbench.core.shares import shares
from augbench.study.classes import kept
from augbench.study.sections.classifier import Classifier

COLUMNS = ["method", "frechet_distance", "recognised", "images", "sets", "recognised_test"]
TIMES = 2  # images that the judge learns from, as a multiple of the training images: what a method's classifier sees
HELD_OUT = 0.2  # share of the validation images that ends the judge's training, where it learns from the others


def judge_sets(
    reserve: pd.DataFrame, validation: pd.DataFrame, counts: Mapping[str, int], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The image tables that the judge learns from, and by which its training ends.

    ``reserve`` holds the real images that no method trains on, starts from or adds; of each class as many are drawn as
    there are, at most ``TIMES`` its training images (``counts``), and the validation images end the training. Where a
    class has fewer in reserve than training images (full ImageNet, Caltech256), the validation images stand in, which
    no method adds or starts from either: a fifth of each class ends the training. A class with a single one has it in
    the part that is learnt from; without any held-out image, training ends by what is learnt.
    """

    def drawn(table: pd.DataFrame, key: str) -> pd.DataFrame:
        mine = table[table["class"] == key]
        return mine.iloc[generator(seed, "judge", key).permutation(len(mine))]

    def joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(parts, ignore_index=True)

    sizes = reserve["class"].value_counts()
    if all(sizes.get(key, 0) >= count for key, count in counts.items()):
        return joined([drawn(reserve, key).head(TIMES * count) for key, count in counts.items()]), validation
    learnt, held = [], []
    for key in counts:
        mine = drawn(validation, key)
        cut = math.ceil((1 - HELD_OUT) * len(mine))
        learnt.append(mine.iloc[:cut])
        held.append(mine.iloc[cut:])
    return joined(learnt), joined(held if any(map(len, held)) else learnt)


def train_judge(
    trainer, sets: Mapping[str, pd.DataFrame], classes: Sequence[Mapping], folder: str | Path, seed: int
) -> None:
    """Train the judge into ``folder``.

    Parameters
    ----------
    trainer : a :class:`augbench.classifier.runs.Trainer`
    sets : reserve and validation, as :func:`judge_sets` takes them, and test
    classes : rows of the class table; seed : the study's
    """
    counts = {row["class"]: row["train"] for row in classes}
    train, validation = judge_sets(sets["reserve"], sets["validation"], counts, seed)
    tables = {"train": train, "validation": validation, "test": sets["test"]}
    trainer.train_only(tables, list(counts), folder, derive(seed, "judge"))


class Gap(NamedTuple):
    """What is measured of a method, mean over its distinct sets of added images."""

    frechet_distance: float
    recognised: float  # percent
    images: float  # of a set
    sets: int


def measure(places: Sequence, batches: Iterable[tuple], real) -> Gap:
    """The gap between a method's sets of added images and ``real`` images.

    Parameters
    ----------
    places : of the images of each set among the method's distinct images, int (n,); equal sets count once
    batches : features (b, d) and whether each image is recognised (b,), of the distinct images in their order
    real : :class:`augbench.report.moments.Moments` of the features of real images
    """
    import numpy as np

    from augbench.report.moments import Moments, frechet_distance

    distinct = list({np.asarray(each).tobytes(): each for each in places}.values())
    count = 1 + max(int(np.max(each)) for each in distinct)
    members = [np.isin(np.arange(count), each) for each in distinct]
    moments, recognised = [Moments() for _ in distinct], np.zeros(len(distinct), np.int64)
    begin = 0
    for features, correct in batches:
        end = begin + len(correct)
        for number, mine in enumerate(each[begin:end] for each in members):
            moments[number].add(features, mine)
            recognised[number] += correct[mine].sum()
        begin = end
    distances = [frechet_distance(each, real) for each in moments]
    shares_of_sets = [100 * hits / each.count for hits, each in zip(recognised, moments, strict=True)]
    sizes = [each.count for each in moments]
    distance, share, size = (float(np.mean(column)) for column in (distances, shares_of_sets, sizes))
    return Gap(distance, share, size, len(distinct))


def moments_of(batches: Iterable[tuple]):
    """The moments of all features of batches, see :func:`measure`."""
    from augbench.report.moments import Moments

    moments = Moments()
    for features, _ in batches:
        moments.add(features)
    return moments


def table(gaps: Mapping[str, Gap], recognised_test: float) -> pd.DataFrame:
    """The gap of each method as ``COLUMNS``: Fréchet distance, recognised images in percent, images per set, number of
    distinct sets, and what the judge recognises of the test images (percent), which is what a method's images could
    reach."""
    rows = [
        (method, round(gap.frechet_distance, 4), round(gap.recognised, 4), round(gap.images), gap.sets)
        for method, gap in gaps.items()
    ]
    return pd.DataFrame([(*row, round(recognised_test, 4)) for row in rows], columns=COLUMNS)


def write(
    path: str | Path,
    methods: Sequence[str],
    classifier: Mapping,
    *,
    classes: str,
    test: str,
    metrics: str,
    weights: str,
    added: Sequence[str],
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Write the :func:`table` of a study as CSV.

    The ``added`` tables are those of each method's sets in turn, ``metrics`` and ``weights`` are the judge's, and
    ``classifier`` is the section that it was trained with. What was measured of a method stays beside the judge until
    the table is written, so that a job that is killed goes on with the next one.
    """
    from augbench.classifier import scoring

    names = [row["class"] for row in kept(classes)]
    examine = scoring.examiner(Path(weights).parent, names, Classifier(**classifier))
    real, gaps, notes = None, {}, Path(weights).parent / "measured"
    for number, (method, sets) in enumerate(shares(methods, added).items()):
        note = notes / f"{method}.json"
        fingerprint = resume.identity(__name__, classifier, [*sets, test, weights])
        known = files.read_json(note) if note.exists() else {}
        if known.get("fingerprint") != fingerprint:
            real = real or moments_of(examine(images.read_columns(test)))
            distinct, places = images.read_distinct(*sets)
            gap = measure(places, examine(distinct), real)
            known = {"fingerprint": fingerprint, "gap": gap}
            files.write_json(note, known)
        gaps[method] = Gap(*known["gap"])
        progress(number + 1, len(methods), "methods measured")
    files.write_csv(path, table(gaps, files.read_json(metrics)["accuracy"]))
    shutil.rmtree(notes)
