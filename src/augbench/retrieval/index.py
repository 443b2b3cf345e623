"""Nearest neighbours of queries in CLIP space, from an index on this machine.

Indices and services (:mod:`augbench.retrieval.service`) give the same: for each query a table, the best first, with
the columns id, similarity (cosine), url, caption, aesthetic (null where unknown), duplicate_of (id of a better image of
which clip-retrieval's detector finds this one a duplicate; null for none) and, where the image lies on this machine,
its path, offset and length.

A query is a text, or an embedding of unit length. The best are the most similar, ties by id; with a ``diversity``
above 0 they are ordered by maximal marginal relevance.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from augbench.core import finite
from augbench.retrieval import matching, metadata
from augbench.retrieval.metadata import PLACE, WANTED
from augbench.study.sources import COLUMNS

CHUNK = 64 << 20  # bytes of vectors that are reconstructed at a time


def index_file(folder: str | Path) -> Path:
    """The faiss index of a clip-retrieval folder: ``image.index``, or what clip-retrieval puts in a folder of that name
    when it makes one that is memory-mapped."""
    file = Path(folder) / "image.index"
    return file / "populated.index" if file.is_dir() else file


def duplicate_of(vectors, threshold: float) -> list[int | None]:
    """For each vector (n, d; unit length) the place of the first of its group, None for the first itself.

    Groups are the connected components of inner products of at least ``threshold``, as in clip-retrieval.
    """
    from clip_retrieval.clip_back import KnnService

    groups = KnnService(clip_resources={})
    firsts: list[int | None] = [None] * len(vectors)
    if not len(vectors):
        return firsts
    import faiss
    import numpy as np

    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    limits, _, near = flat.range_search(vectors, threshold)
    mapping = {i: [int(j) for j in near[limits[i] : limits[i + 1]]] for i in range(len(vectors))}
    for group in groups.connected_components(mapping):
        for place in group:
            firsts[place] = min(group) if place != min(group) else None
    return firsts


def by_marginal_relevance(similarities, vectors, diversity: float) -> list[int]:
    """The order in which greedy maximal marginal relevance picks all of n images (Carbonell and Goldstein, 1998).

    Each next one has the largest (1 - ``diversity``) * similarity to the query - ``diversity`` * similarity to the
    most similar image before it; ties go to the earlier one.

    Parameters
    ----------
    similarities : (n,) to the query; vectors : (n, width), of unit length
    """
    import numpy as np

    relevance = (1 - diversity) * np.asarray(similarities, dtype=float)
    between, nearest = vectors @ vectors.T, None  # nearest: similarity to the most similar image that is picked
    left, order = np.ones(len(vectors), dtype=bool), []
    for _ in range(len(vectors)):
        gain = relevance if nearest is None else relevance - diversity * nearest
        picked = int(np.argmax(np.where(left, gain, -np.inf)))
        order.append(picked)
        left[picked] = False
        nearest = between[picked] if nearest is None else np.maximum(nearest, between[picked])
    return order


def index_shape(folder: str | Path) -> tuple[int, int]:
    """Vectors and their width in a clip-retrieval folder's ``image.index``, from its head: nothing is loaded.

    Raises ValueError for a file that is not there, or no faiss index. Source: faiss, ``write_index_header``.
    """
    file = index_file(folder)
    try:
        with open(file, "rb") as opened:
            head = opened.read(16)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if len(head) < 16 or not re.fullmatch(rb"I[A-Za-z0-9]{3}", head[:4]):
        raise ValueError(f"{file} is not a faiss index")
    width, count = struct.unpack("<iq", head[4:])
    return count, width


def check_index(folder: str | Path, *, clip: str = "", width: int | None = None, places: bool = False) -> None:
    """Raise ValueError unless a clip-retrieval folder fits together: its vectors have the ``width`` of the CLIP, where
    that is known, there is a row of metadata for each, and these say where the images are."""
    count, wide = index_shape(folder)
    if width and wide != width:
        raise ValueError(
            f"{folder} has vectors of width {wide}, but the CLIP {clip} has width {width}; "
            "name the CLIP that the index was built with"
        )
    rows, names = metadata.shape(folder)
    if rows != count:
        raise ValueError(f"{folder} has {count} vectors and {rows} rows of metadata; they belong to different images")
    if not (set(COLUMNS["url"]) & set(names) or (places and set(PLACE) <= set(names))):
        raise ValueError(
            f"{folder} has no addresses of its images: its metadata need the column url (they have "
            f"{', '.join(names) or 'none'}); give the images themselves as `pool: {{source: folder}}`"
        )


class Searchable:
    """Vectors on this machine, with metadata.

    metadata : :class:`augbench.retrieval.metadata.Reader`; clip : embeds texts; width : of the vectors; identity : what
    answers depend on, beside the question, the place first
    """

    metadata: metadata.Reader
    clip: Any
    width: int
    identity: list

    def nearest(self, vectors, counts: Sequence[int], limits: Sequence[int]) -> Iterator[tuple]:
        """For each of some queries, float32 (n, width), in their order: similarities, ids and vectors of at least
        ``counts`` nearest images, as far as there are so many; their order does not matter. ``limits`` is how many
        may be asked for later."""
        raise NotImplementedError

    def vectors_of(self, ids) -> Iterator:
        """The vectors of increasing ids as they are compared, float32 (n, width), of some of them at a time."""
        raise NotImplementedError

    def neighbours(
        self,
        queries: Sequence,
        counts: Sequence[int],
        threshold: float,
        *,
        diversity: float = 0.0,
        among: Sequence = (),
        rows: Sequence | None = None,
        by_similarity: bool = True,
    ) -> Iterator[pd.DataFrame]:
        """The tables of the queries, in their order, each with (at most) its count of neighbours; with a
        ``diversity`` the best among ``among`` nearest. Without one, ``among`` says how many may be asked for later.

        ``rows`` : for each query the ids, increasing, that are considered, else all; these, where ``by_similarity`` is
        false, in their order
        """
        import numpy as np

        vectors = np.stack([self.clip.texts([q])[0] if isinstance(q, str) else np.float32(q) for q in queries])
        if vectors.shape[1] != self.width:
            raise ValueError(
                f"{self.identity[0]} has vectors of width {self.width}, but the CLIP has width {vectors.shape[1]}; "
                "name the CLIP that the index was built with"
            )
        finite.check(
            vectors, "the query", [f"the text {q!r}" if isinstance(q, str) else "an embedding" for q in queries]
        )
        searched = list(among) if diversity else list(counts)
        if rows is not None and not by_similarity:
            rows = [ids[:count] for ids, count in zip(rows, searched, strict=True)]
        if rows is None:
            answers = self.nearest(vectors, searched, among or searched)
        else:
            answers = matching.nearest(self, vectors, searched, rows)
        order = ["similarity", "id"] if by_similarity else ["id"]
        ranked = (_ranked(answer, count, order) for answer, count in zip(answers, searched, strict=True))
        yield from self.metadata.complete(_distinguished(ranked, counts, threshold, diversity))


def _ranked(answer: tuple, count: int, order: list[str]) -> tuple[pd.DataFrame, Any]:
    """id and similarity of the first ``count`` neighbours of an answer of :meth:`Searchable.nearest`, and their vectors
    of unit length."""
    import numpy as np

    similarities, ids, vectors = answer
    table = pd.DataFrame({"id": ids, "similarity": similarities.astype(float), "row": range(len(ids))})
    table = table[table["id"] >= 0].sort_values(order, ascending=[name != "similarity" for name in order])
    table = table.head(count).reset_index(drop=True)
    own = vectors[table.pop("row")].astype(np.float32)  # they may be stored in half precision
    own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
    return table, own


def _distinguished(
    ranked: Iterable[tuple[pd.DataFrame, Any]], counts: Sequence[int], threshold: float, diversity: float
) -> Iterator[pd.DataFrame]:
    """id, similarity and duplicate_of of the neighbours of each query, with a diversity of the best ``counts``."""
    for (table, own), count in zip(ranked, counts, strict=True):
        if diversity:
            order = by_marginal_relevance(table["similarity"], own, diversity)[:count]
            table, own = table.iloc[order].reset_index(drop=True), own[order]
        groups = duplicate_of(own, threshold)
        table["duplicate_of"] = [None if i is None else int(table["id"].iloc[i]) for i in groups]
        yield table


class LocalIndex(Searchable):
    """A clip-retrieval folder: ``image.index`` (memory-mapped) and metadata as HDF5, Arrow or Parquet."""

    def __init__(self, folder: str | Path, clip, *, places: bool = False):
        """
        Parameters
        ----------
        clip : embeds texts, see :class:`augbench.models.clip.Clip`; of the images' own space
        places : whether to believe the metadata that an image lies on this machine; never those of a stranger
        """
        from clip_retrieval.clip_back import load_index

        folder = Path(folder)
        check_index(folder, places=places)
        self.index = load_index(str(folder / "image.index"), True)
        self.metadata = metadata.reader(folder, WANTED + PLACE * places)
        self.clip, self.width = clip, self.index.d
        status = index_file(folder).stat()
        #: What its answers depend on, beside the question.
        self.identity = [str(folder), status.st_size, status.st_mtime_ns, getattr(clip, "identity", None)]
        self.identity += self.metadata.provenance

    def nearest(self, vectors, counts, limits):
        size = max(1, CHUNK // (4 * self.width * max(counts)))
        for start in range(0, len(vectors), size):
            most = max(counts[start : start + size])
            yield from zip(*self.index.search_and_reconstruct(vectors[start : start + size], most), strict=True)

    def vectors_of(self, ids):
        """Of an approximate index as far as it keeps them, as in :meth:`nearest`."""
        import faiss

        lists = faiss.try_extract_index_ivf(self.index)
        if lists and len(ids) and lists.direct_map.no():
            lists.make_direct_map()  # in which list each vector lies: 8 bytes of memory for each
        size = max(1, CHUNK // (4 * self.width))
        for start in range(0, len(ids), size):
            yield self.index.reconstruct_batch(ids[start : start + size])
