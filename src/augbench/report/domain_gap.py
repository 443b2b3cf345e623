"""The domain gap: how far a method's added images are from real ones, in the eyes of a classifier of real images.

That classifier, the judge, knows no image that a method adds or starts from: it would know these by heart.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import files
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


def frechet_distance(first, second) -> float:
    """Squared Fréchet distance of two Gaussians fitted to features (n, d) and (m, d) (Heusel et al. 2017).

    ``|mu1 - mu2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))``. It grows as sets get smaller, so compare sets of one
    size. Raises ValueError for fewer than two images.
    """
    import numpy as np

    first, second = np.asarray(first, float), np.asarray(second, float)
    if min(len(first), len(second)) < 2:
        raise ValueError("a Fréchet distance needs at least two images on each side")
    difference = first.mean(0) - second.mean(0)
    one, two = np.atleast_2d(np.cov(first, rowvar=False)), np.atleast_2d(np.cov(second, rowvar=False))
    # The eigenvalues of C1 C2 are those of the symmetric C1^(1/2) C2 C1^(1/2), which are real and not negative.
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    mixed = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    return max(0.0, float(difference @ difference + np.trace(one) + np.trace(two) - 2 * mixed))


def measure(
    sets: Mapping[str, Sequence[pd.DataFrame]], reference: pd.DataFrame, examine: Callable, recognised_test: float
) -> pd.DataFrame:
    """The gap of each method: mean over its sets of added images, each against the real ``reference`` images.

    ``examine(table)`` returns features (n, d) and whether each image is recognised (n,). Returns ``COLUMNS``:
    Fréchet distance, recognised images in percent, images per set, number of distinct sets, and what the judge
    recognises of the test images (percent), which is what a method's images could reach.
    """
    import numpy as np

    real, _ = examine(reference)
    rows = []
    for method, tables in sets.items():
        distinct = {tuple(table["image_id"]): table for table in tables}
        whole = pd.concat(distinct.values()).drop_duplicates("image_id", ignore_index=True)
        features, correct = examine(whole)
        place = {image: i for i, image in enumerate(whole["image_id"])}
        gaps = []
        for table in distinct.values():
            places = [place[image] for image in table["image_id"]]
            distance = frechet_distance(features[places], real)
            gaps.append((distance, 100 * float(np.mean(correct[places])), len(places)))
        distance, share, count = (float(np.mean(column)) for column in zip(*gaps, strict=True))
        rows.append(
            (method, round(distance, 4), round(share, 4), round(count), len(distinct), round(recognised_test, 4))
        )
    return pd.DataFrame(rows, columns=COLUMNS)


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
) -> None:
    """Write :func:`measure` of a study as CSV.

    The ``added`` tables are those of each method's sets in turn, ``metrics`` and ``weights`` are the judge's, and
    ``classifier`` is the section that it was trained with.
    """
    from augbench.classifier import scoring

    names = [row["class"] for row in kept(classes)]
    network = Classifier(**classifier)

    def examine(table: pd.DataFrame):
        features, predictions = scoring.score(Path(weights).parent, names, table, network)
        return features, predictions["correct"].to_numpy()

    sets = shares(methods, [images.read(file) for file in added])
    recognised = files.read_json(metrics)["accuracy"]
    files.write_csv(path, measure(sets, images.read(test), examine, recognised))
