"""Metrics of a set of images against another of the same size: KID, precision and recall, density and coverage, Vendi.

Each is computed from the inner products of features, (n, n) in double precision, so a set is a sample of at most
``LARGEST`` images, however many a method adds.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from augbench.core.seeds import generator

LARGEST = 5000  # images of a sample
NEIGHBOURS = 5  # k, of precision, recall, density and coverage
SUBSET, SUBSETS = 1000, 100  # images of a subset, and subsets, of whose KIDs the mean is taken
NAMES = ("kid", "precision", "recall", "density", "coverage", "vendi")
COLUMNS = ["method", "encoder", "images", "neighbours", *NAMES]


class SetMetrics(NamedTuple):
    """Of added images against real ones. ``kid``: unbiased, 0 for sets of one distribution; ``precision``: share of
    added images that are among real ones, ``recall``: of real among added ones; ``density`` and ``coverage``: the same
    two, robust against outliers, 1 at best and above it where added images crowd together; ``vendi``: how many
    different images the added ones are worth."""

    kid: float
    precision: float
    recall: float
    density: float
    coverage: float
    vendi: float


class Sample:
    """Features of a sample of images, float (n, d), and what all comparisons need of them.

    Raises ValueError for so few images that none has NEIGHBOURS others.
    """

    def __init__(self, features: np.ndarray):
        if len(features) <= NEIGHBOURS:
            raise ValueError(f"metrics of nearest neighbours need more than {NEIGHBOURS} images in each set")
        self.features = np.asarray(features, np.float64)
        self.products = self.features @ self.features.T
        self.squares = np.diagonal(self.products)
        #: Distance of each image to its NEIGHBOURS-th nearest of the others, squared, (n,).
        self.radii = np.partition(_distances(self.products, self.squares, self.squares), NEIGHBOURS, axis=1)[
            :, NEIGHBOURS
        ]


def _distances(products: np.ndarray, squares: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances, (n, m), of features from their inner products and squared lengths."""
    return (squares[:, None] + others[None] - 2 * products).clip(0)


def measure(real: Sample, added: Sample, random: np.random.Generator) -> SetMetrics:
    """The metrics of ``added`` images against as many ``real`` ones. ``random`` chooses the subsets of the KID.

    Precision and recall: Kynkäänniemi et al. 2019; density and coverage: Naeem et al. 2020. Raises ValueError for sets
    of different sizes.
    """
    if len(real.features) != len(added.features):
        raise ValueError("metrics compare sets of the same size")
    across = real.features @ added.features.T
    distances = _distances(across, real.squares, added.squares)
    among_real = distances < real.radii[:, None]
    return SetMetrics(
        kid=kid(real, added, across, random),
        precision=float(among_real.any(0).mean()),
        recall=float((distances < added.radii[None]).any(1).mean()),
        density=float(among_real.sum(0).mean() / NEIGHBOURS),
        coverage=float((distances.min(1) < real.radii).mean()),
        vendi=vendi(added.features),
    )


def kid(real: Sample, added: Sample, across: np.ndarray, random: np.random.Generator) -> float:
    """Kernel inception distance (Binkowski et al. 2018): the unbiased squared MMD with the kernel (x y / d + 1)^3.

    Of sets of more than SUBSET images the mean over SUBSETS subsets. ``across``: inner products (real, added).
    """
    count, width = added.features.shape
    subsets = SUBSETS if count > SUBSET else 1
    size = min(count, SUBSET)
    total = 0.0
    for _ in range(subsets):
        one, two = (np.sort(random.permutation(count)[:size]) for _ in range(2))
        first, second, mixed = (
            (products[np.ix_(rows, columns)] / width + 1) ** 3
            for products, rows, columns in ((real.products, one, one), (added.products, two, two), (across, one, two))
        )
        own = (first.sum() - np.trace(first) + second.sum() - np.trace(second)) / (size * (size - 1))
        total += own - 2 * mixed.mean()
    return float(total / subsets)


def vendi(features: np.ndarray) -> float:
    """Vendi score (Friedman and Dieng 2023) with cosine similarity: exp of the entropy of the eigenvalues of the
    similarities / n; of n different images at most n, of copies of one image 1."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(lengths > 0, lengths, 1)
    count, width = unit.shape
    similarities = unit.T @ unit if width < count else unit @ unit.T  # the same eigenvalues, but for zeros
    values = np.linalg.eigvalsh(similarities / count)
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


def sample_size(sizes: Iterable[int]) -> int:
    """Images of each sample: as many as the smallest set has that has enough for neighbours, at most LARGEST; 0 where
    none has."""
    enough = [size for size in sizes if size > NEIGHBOURS]
    return min([LARGEST, *enough]) if enough else 0


def drawn(count: int, size: int, *key: object) -> np.ndarray:
    """Places of ``size`` of ``count`` images, drawn at random, in increasing order, int64 (size,)."""
    return np.sort(generator(*key, "metrics").permutation(count)[:size])


class Kept:
    """Features of some images, kept while all of them pass by batch by batch.

    ``places``: of these images, in increasing order.
    """

    def __init__(self, places: Sequence[int]):
        self.places, self.parts = np.asarray(places), []

    def passing(self, batches: Iterable[tuple]) -> Iterator[tuple]:
        """The batches (features, ...) as they come."""
        begin = 0
        for features, *rest in batches:
            first, last = np.searchsorted(self.places, [begin, begin + len(features)])
            if first < last:
                mine = features[self.places[first:last] - begin]
                self.parts.append(np.asarray(mine.cpu() if hasattr(mine, "cpu") else mine))
            begin += len(features)
            yield features, *rest

    def sample(self) -> Sample:
        return Sample(np.concatenate(self.parts))


def table(measured: dict[str, SetMetrics | None], encoder: str, images: int) -> pd.DataFrame:
    """The metrics of each method as ``COLUMNS``; empty for a method with too few images."""
    nothing = [None] * len(NAMES)
    rows = [
        (method, encoder, images, NEIGHBOURS, *([float(f"{value:.6g}") for value in metrics] if metrics else nothing))
        for method, metrics in measured.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)
