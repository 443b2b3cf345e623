"""Nearest neighbours of queries among published embeddings, without an index: one exact scan for all queries.

The vectors are read block by block, whatever their number. No index is ever built instead: to add a row to one with
inverted lists is to compare it with the centroids of all lists, some 4 to 16 times the square root of the rows, as a
scan compares it with the queries. By that, of 2 million rows an index would save time from some 6,000 queries on, of
100 million from 40,000 on; where both were measured, up to 1,000 queries of 500,000 rows, it never did
(benchmarks/README.md). A study has one query for each class.
"""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from augbench.core.files import BadInput
from augbench.retrieval import metadata
from augbench.retrieval.index import Searchable
from augbench.retrieval.metadata import WANTED
from augbench.study import embedding_pairs

BLOCK = 16 << 20  # bytes of vectors, as float32, that are compared at a time
TILE = 256  # queries with which they are
ROUNDING = 1e-3  # by which the length of a unit vector in half precision may miss 1
PROBED = 256  # rows whose captions are compared with their vectors
AGREES = 0.55  # share of caption and vector pairs by which a CLIP is told from one that knows nothing of them: 0.5


class Scan(Searchable):
    """The pairs of a folder, see :mod:`augbench.study.embedding_pairs`."""

    def __init__(self, folder: str | Path, array: str | None, clip):
        """``clip`` : embeds texts, see :class:`augbench.models.clip.Clip`; of the vectors' own space.

        Raises BadInput when the pairs do not fit together, or captions are not near their images in this CLIP.
        """
        self.pairs = embedding_pairs.pairs(folder, array)
        shapes = [embedding_pairs.shape(pair) for pair in self.pairs]
        self.begins = np.cumsum([0, *(rows for rows, _ in shapes)])
        self.width, self.kind = shapes[0][1], embedding_pairs.vectors(self.pairs[0]).dtype
        self.metadata = metadata.of_parquet([pair.metadata for pair in self.pairs], WANTED)
        self.clip = clip
        self.best: dict[bytes, tuple] = {}  # similarities and ids of a query's nearest, the best first, by its bytes
        states = [path.stat() for pair in self.pairs for path in (pair.vectors, pair.metadata)]
        states = [[status.st_size, status.st_mtime_ns] for status in states]
        self.identity = [str(folder), array, states, getattr(clip, "identity", None), *self.metadata.provenance]
        check_clip(str(folder), *self._probe(), clip)

    def nearest(self, vectors: np.ndarray, counts: Sequence[int], limits: Sequence[int]) -> Iterator[tuple]:
        vectors = np.ascontiguousarray(vectors, np.float32)
        self._scan(vectors, limits)
        best = [
            tuple(each[:count] for each in self.best[vector.tobytes()])
            for vector, count in zip(vectors, counts, strict=True)
        ]
        with tempfile.TemporaryFile() as file:
            distinct = np.unique(np.concatenate([ids for _, ids in best]))
            kept = np.memmap(file, self.kind, "w+", shape=(max(1, len(distinct)), self.width))
            self._gather(distinct, kept)
            for similarities, ids in best:
                yield similarities, ids, np.array(kept[np.searchsorted(distinct, ids)])

    def vectors_of(self, ids):
        limits = np.searchsorted(ids, self.begins)
        for place, (first, last) in enumerate(itertools.pairwise(limits)):
            if first < last:
                yield from blocks(embedding_pairs.vectors(self.pairs[place]), ids[first:last] - self.begins[place])

    def _scan(self, vectors: np.ndarray, limits: Sequence[int]) -> None:
        """Have ``limits`` nearest images of each vector in ``best``. What was searched before is there already, so a
        search for further neighbours of the same vectors reads no embeddings."""
        wanted = [min(limit, int(self.begins[-1])) for limit in limits]
        fresh = [
            place
            for place, vector in enumerate(vectors)
            if len(self.best.get(vector.tobytes(), ((),))[0]) < wanted[place]
        ]
        if fresh:
            print(
                f"{self.identity[0]}: {self.begins[-1]:,} embeddings are compared with {len(fresh):,} queries, exactly "
                "and without an index",
                flush=True,
            )
            nearest = Nearest(vectors[fresh], [wanted[place] for place in fresh])
            for pair in self.pairs:
                for block in blocks(embedding_pairs.vectors(pair)):
                    nearest.add(block)
            for place, one in zip(fresh, nearest.results(), strict=True):
                self.best[vectors[place].tobytes()] = one

    def _gather(self, ids: np.ndarray, kept: np.ndarray) -> None:
        """Put the vectors of increasing ids into ``kept``."""
        limits = np.searchsorted(ids, self.begins)
        for place, (first, last) in enumerate(itertools.pairwise(limits)):
            if first < last:
                kept[first:last] = embedding_pairs.vectors(self.pairs[place])[ids[first:last] - self.begins[place]]

    def _probe(self) -> tuple[list[str], np.ndarray]:
        """Captions of some rows, and their vectors."""
        count = int(self.begins[-1])
        ids = np.unique(np.linspace(0, count - 1, min(PROBED, count)).astype(np.int64))
        facts = self.metadata.rows(ids)
        captions = facts["caption"].to_pylist() if "caption" in facts.column_names else [None] * len(ids)
        vectors = np.zeros((len(ids), self.width), self.kind)
        self._gather(ids, vectors)
        stated = {place: str(caption) for place, caption in enumerate(captions) if caption and caption.strip()}
        return list(stated.values()), _unit(vectors[list(stated)])


class Nearest:
    """The nearest of vectors that are shown block by block.

    Parameters
    ----------
    queries : float32 (n, width); counts : of the vectors that are kept for each, of equal ones the first
    """

    def __init__(self, queries: np.ndarray, counts: Sequence[int]):
        self.queries, self.counts, self.shown = queries, counts, 0
        self.least = np.full(len(queries), -np.inf, np.float32)  # similarity above which a vector may be kept
        self.parts: list[list[tuple]] = [[] for _ in queries]  # similarities and ids, twice as many as wanted at most
        self.sizes = [0] * len(queries)

    def add(self, block: np.ndarray) -> None:
        """``block`` : the next vectors, float32 (m, width)."""
        for start in range(0, len(self.queries), TILE):
            for query, row in enumerate(self.queries[start : start + TILE] @ block.T, start):
                near = np.flatnonzero(row > self.least[query])
                if len(near):
                    self.parts[query].append((row[near], near + self.shown))
                    self.sizes[query] += len(near)
                    if self.sizes[query] >= 2 * self.counts[query]:
                        self._reduce(query)
        self.shown += len(block)

    def _reduce(self, query: int) -> None:
        similarities, ids = map(np.concatenate, zip(*self.parts[query], strict=True))
        count = self.counts[query]
        if len(ids) > count:
            least = np.partition(similarities, -count)[-count]
            chosen = similarities > least
            chosen[np.flatnonzero(similarities == least)[: count - chosen.sum()]] = True
            similarities, ids, self.least[query] = similarities[chosen], ids[chosen], least
        self.parts[query], self.sizes[query] = [(similarities, ids)], len(ids)

    def results(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Similarities and ids of each query's nearest, the best first."""
        for query in range(len(self.queries)):
            self._reduce(query)
            similarities, ids = self.parts[query][0]
            order = np.argsort(-similarities, kind="stable")
            yield similarities[order], ids[order]


def blocks(vectors: np.ndarray, places: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Vectors (n, width), all or those at some places, as float32 (m, width) of unit length, some at a time."""
    rows = max(1, BLOCK // (4 * vectors.shape[1]))
    for start in range(0, len(vectors) if places is None else len(places), rows):
        stretch = slice(start, start + rows)
        yield _unit(vectors[stretch if places is None else places[stretch]])


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors as float32 of unit length, as they are where they have it but for the rounding of half precision, as an
    index would; those that are not finite are 0, and so near to nothing."""
    vectors = np.array(vectors, np.float32, order="C")
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    usable = np.isfinite(norms) & (norms > 0)
    if not usable.all():
        vectors[~usable] = 0
        norms[~usable] = 1
    other = np.abs(norms - 1) > ROUNDING
    if other.any():
        vectors /= np.where(other, norms, 1)[:, None]
    return vectors


def agreement(texts: np.ndarray, images: np.ndarray, captions: Sequence[str]) -> float:
    """How often an image (n, width) is nearer to its own caption's vector (n, width) than to another, different one:
    1 where CLIP and vectors agree in everything, about 0.5 where they have nothing to do with each other."""
    similarities = texts @ images.T
    coded = np.unique(np.array(captions, object).astype(str), return_inverse=True)[1]
    other = coded[:, None] != coded[None, :]
    if not other.any():
        return 1.0
    return float((similarities.diagonal()[None, :] > similarities)[other].mean())


def check_clip(folder: str, captions: Sequence[str], images: np.ndarray, clip) -> None:
    """Print how well a CLIP's text vectors agree with the vectors (n, width) of images with these captions.

    Raises BadInput when they do not: another CLIP of the same width would find nonsense, without an error.
    """
    if len(set(captions)) < 50:
        print(f"{folder}: too few captions to see whether its embeddings are this CLIP's", flush=True)
        return
    share = agreement(np.asarray(clip.texts(list(captions))), images, captions)
    print(f"{folder}: {share:.0%} of {len(captions)} images are nearer to their own caption than to others", flush=True)
    if share < AGREES:
        raise BadInput(
            f"{folder}: its embeddings are not this CLIP's: only {share:.0%} of the images are nearer to their own "
            "caption than to others (half of them would be by chance); name the CLIP that they were made with, `clip: "
            "{model: ...}`"
        )
