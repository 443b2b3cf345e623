"""The domain gap: how far a method's added images are from real ones, in the eyes of a classifier of real images.

That classifier, the judge, knows no image that a method adds or starts from: it would know these by heart.
"""

import functools
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from augbench import images
from augbench.core import files, resume
from augbench.core.seeds import derive, generator
from augbench.core.shares import shares
from augbench.report import set_metrics
from augbench.report.set_metrics import SetMetrics
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


class Measurer:
    """Measures methods' added images against the test images, of which all is computed once, when it is first needed.

    Parameters
    ----------
    examine : as :func:`augbench.classifier.scoring.examiner` gives it
    embed : features of an image table's images in the eyes of another encoder; None: the examiner's
    test : image table of the test images
    size : images of each sample; seed : the study's, by which they are drawn
    """

    def __init__(self, examine: Callable, embed: Callable | None, test: pd.DataFrame, size: int, seed: int):
        self.examine, self.embed, self.test, self.size, self.seed = examine, embed, test, size, seed

    @functools.cached_property
    def real(self):
        """The moments of the test images' features, and the sample of these, or None."""
        return self._passed(self.test, np.arange(len(self.test)), "test", moments_of)

    def measure(self, method: str, sets: Sequence[str | Path]) -> tuple[Gap, SetMetrics | None]:
        """A method's gap by all its sets, and the metrics of its first one; None where that has too few images."""
        moments, real = self.real
        distinct, places = images.read_distinct(*sets)
        gap, added = self._passed(distinct, places[0], method, lambda batches: measure(places, batches, moments))
        if real is None or added is None:
            return gap, None
        return gap, set_metrics.measure(real, added, generator(self.seed, "kid", method))

    def _passed(self, table: pd.DataFrame, places, name: str, gather: Callable):
        """What ``gather`` makes of all images of a table batch by batch, and a sample of those at some ``places``."""
        enough = self.size and len(places) > set_metrics.NEIGHBOURS
        chosen = np.sort(places[set_metrics.drawn(len(places), self.size if enough else 0, self.seed, name)])
        kept = set_metrics.Kept(chosen if self.embed is None else chosen[:0])
        gathered = gather(kept.passing(self.examine(table)))
        if not enough:
            return gathered, None
        return gathered, set_metrics.Sample(self.embed(table.iloc[chosen])) if self.embed else kept.sample()


def write(
    gap_table: str | Path,
    metrics_table: str | Path,
    methods: Sequence[str],
    classifier: Mapping,
    encoder: str,
    seed: int,
    *,
    classes: str,
    test: str,
    metrics: str,
    weights: str,
    added: Sequence[str],
    embed: Callable[[pd.DataFrame], object] | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Write two tables of a study as CSV: the gap of each method, see :func:`table`, and metrics of its images, see
    :func:`augbench.report.set_metrics.table`.

    The ``added`` tables are those of each method's sets in turn, ``metrics`` and ``weights`` are the judge's, and
    ``classifier`` is the section that it was trained with. ``encoder`` is the name of what the metrics' features come
    from, ``embed`` as :class:`Measurer` takes it. What was measured of a method stays beside the judge until the tables
    are written, so that a job that is killed goes on with the next one.
    """
    from augbench.classifier import scoring

    names = [row["class"] for row in kept(classes)]
    examine = scoring.examiner(Path(weights).parent, names, Classifier(**classifier))
    by_method = shares(methods, added)
    size = set_metrics.sample_size(images.count(path) for path in [test, *(sets[0] for sets in by_method.values())])
    measurer = Measurer(examine, embed, images.read_columns(test), size, seed)
    settings = {"classifier": dict(classifier), "encoder": encoder, "size": size, "seed": seed}
    gaps, measured, notes = {}, {}, Path(weights).parent / "measured"
    for number, (method, sets) in enumerate(by_method.items()):
        note = notes / f"{method}.json"
        fingerprint = resume.identity(__name__, settings, [*sets, test, weights])
        known = files.read_json(note) if note.exists() else {}
        if known.get("fingerprint") != fingerprint:
            gap, of_set = measurer.measure(method, sets)
            known = {"fingerprint": fingerprint, "gap": gap, "metrics": of_set}
            files.write_json(note, known)
        gaps[method] = Gap(*known["gap"])
        measured[method] = SetMetrics(*known["metrics"]) if known["metrics"] else None
        progress(number + 1, len(methods), "methods measured")
    files.write_csv(metrics_table, set_metrics.table(measured, encoder, size))
    files.write_csv(gap_table, table(gaps, files.read_json(metrics)["accuracy"]))
    shutil.rmtree(notes)
