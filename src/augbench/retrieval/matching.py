"""The nearest of some rows of a pool, such as those whose captions name a class: exact, whatever the index."""

import tempfile
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np


class Vectors(Protocol):
    """Vectors by their ids, see :class:`augbench.retrieval.index.Searchable`."""

    width: int

    def vectors_of(self, ids: np.ndarray) -> Iterator[np.ndarray]: ...


def nearest(
    source: Vectors, queries: np.ndarray, counts: Sequence[int], rows: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each query, float32 (n, width), similarities, ids and vectors of the ``counts`` nearest of its ``rows``
    (increasing ids), the most similar first, ties by id.

    The vectors of all rows are read once, a block at a time; of those that are not chosen a similarity alone is kept.
    """
    chosen = list(_chosen(source, queries, counts, rows))
    distinct = np.unique(np.concatenate([ids for _, ids in chosen]))
    with tempfile.TemporaryFile() as file:
        kept = np.memmap(file, np.float32, "w+", shape=(max(1, len(distinct)), source.width))
        for begin, block in _blocks(source, distinct):
            kept[begin : begin + len(block)] = block
        for similarities, ids in chosen:
            yield similarities, ids, np.array(kept[np.searchsorted(distinct, ids)])


def _chosen(source: Vectors, queries: np.ndarray, counts: Sequence[int], rows: Sequence[np.ndarray]) -> Iterator[tuple]:
    """Similarities and ids of the nearest rows of each query."""
    distinct = np.unique(np.concatenate(rows))
    places = [np.searchsorted(distinct, ids) for ids in rows]
    similarities = [np.zeros(len(ids), np.float32) for ids in rows]
    for begin, block in _blocks(source, distinct):
        for number, query in enumerate(queries):
            first, last = np.searchsorted(places[number], [begin, begin + len(block)])
            if first < last:
                similarities[number][first:last] = block[places[number][first:last] - begin] @ query
    for mine, ids, count in zip(similarities, rows, counts, strict=True):
        best = np.lexsort((ids, -mine))[:count]
        yield mine[best], ids[best]


def _blocks(source: Vectors, ids: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The place among ``ids`` of the first vector of each block, and the block."""
    begin = 0
    for block in source.vectors_of(ids):
        yield begin, block
        begin += len(block)
