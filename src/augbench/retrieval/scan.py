"""Nearest neighbours of queries among published embeddings, without an index: one exact scan for all queries.

For the classes of a study against some million rows this is quicker than building an index, needs no room on the disk
and misses nothing. The vectors are read block by block, whatever their number.
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

BLOCK = 64 << 20  # bytes of vectors, as float32, that are compared at a time
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
        self.width, self.kind = shapes[0][1], self._vectors(0).dtype
        self.metadata = metadata.of_parquet([pair.metadata for pair in self.pairs], WANTED)
        self.clip = clip
        states = [path.stat() for pair in self.pairs for path in (pair.vectors, pair.metadata)]
        states = [[status.st_size, status.st_mtime_ns] for status in states]
        self.identity = [str(folder), array, states, getattr(clip, "identity", None), *self.metadata.provenance]
        check_clip(str(folder), *self._probe(), clip)

    def nearest(self, vectors: np.ndarray, counts: Sequence[int]) -> Iterator[tuple]:
        from faiss import METRIC_INNER_PRODUCT
        from faiss.contrib.exhaustive_search import knn_ground_truth

        most = min(max(counts), int(self.begins[-1]))
        blocks = (block for place in range(len(self.pairs)) for block in _blocks(self._vectors(place)))
        similarities, ids = knn_ground_truth(
            np.ascontiguousarray(vectors, np.float32), blocks, most, METRIC_INNER_PRODUCT, ngpu=0
        )
        with tempfile.TemporaryFile() as file:
            distinct = np.unique(ids[ids >= 0])
            kept = np.memmap(file, self.kind, "w+", shape=(max(1, len(distinct)), self.width))
            self._gather(distinct, kept)
            for row in range(len(vectors)):
                mine = ids[row] >= 0
                places = np.searchsorted(distinct, ids[row][mine])
                yield similarities[row][mine], ids[row][mine], np.array(kept[places])

    def vectors_of(self, ids):
        limits = np.searchsorted(ids, self.begins)
        for place, (first, last) in enumerate(itertools.pairwise(limits)):
            if first < last:
                yield from _blocks(self._vectors(place), ids[first:last] - self.begins[place])

    def _vectors(self, place: int) -> np.ndarray:
        """The vectors of a pair, float16 or float32 (n, width): a file of vectors is mapped, an npz's array read."""
        pair = self.pairs[place]
        if pair.array is None:
            return np.load(pair.vectors, mmap_mode="r")
        with np.load(pair.vectors) as arrays:
            return arrays[pair.array]

    def _gather(self, ids: np.ndarray, kept: np.ndarray) -> None:
        """Put the vectors of increasing ids into ``kept``."""
        limits = np.searchsorted(ids, self.begins)
        for place, (first, last) in enumerate(itertools.pairwise(limits)):
            if first < last:
                kept[first:last] = self._vectors(place)[ids[first:last] - self.begins[place]]

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


def _blocks(vectors: np.ndarray, places: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Vectors, all or those at some places, as they are compared."""
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
    vectors[other] /= norms[other, None]
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
