"""Finds added images that may be copies of reference images, above all of the test set (paper, section 4.5).

What is found here are *candidates*: pairs of images whose perceptual hashes are close, or whose embeddings are.
Whether a pair is a duplicate is for people to say.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from augbench import images
from augbench.audit import hashes as image_hashes
from augbench.core.files import whole, write_json
from augbench.core.shares import shares
from augbench.images import embeddings

BITS = 64
RADIUS = 10  # bits; candidates differ in fewer, as in the paper
BLOCK = 4096  # queries at a time, which bounds the memory that their answers take
SIMILARITIES = 2**24  # cosine similarities at a time, 64 MB


class Set(NamedTuple):
    """A set of images as the detectors see it."""

    table: pd.DataFrame  # an image table
    hashes: np.ndarray  # uint64 (n,)
    vectors: np.ndarray | None = None  # float32 (n, width), each of length 1; None without a second detector


def pairs(
    a: np.ndarray, b: np.ndarray, radius: int = RADIUS, threads: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of hashes that differ in fewer than ``radius`` bits, exactly.

    Returns positions in ``a`` and in ``b`` and the distances in bits, int64 each, ordered by distance,
    then by position in ``a``, then in ``b``. Memory is that of the hashes and of what is found.
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    blocks = [np.zeros((3, 0), np.int64)]
    index = faiss.IndexBinaryFlat(BITS)
    index.add(_bytes(b))
    for start in range(0, len(a), BLOCK):
        block = _bytes(a[start : start + BLOCK])
        limits, distance, j = index.range_search(block, radius)  # finds distance < radius, strictly
        i = start + np.repeat(np.arange(len(block)), np.diff(limits.astype(np.int64)))
        blocks.append(np.stack([i, j.astype(np.int64), distance.astype(np.int64)]))
    i, j, distance = np.concatenate(blocks, axis=1)
    order = np.lexsort((j, i, distance))
    return i[order], j[order], distance[order]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.uint64).view(np.uint8).reshape(-1, BITS // 8)


def alike(a: np.ndarray, b: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions in ``a`` and in ``b``, int64 each, of all pairs of vectors (rows, float32, of length 1) whose cosine
    similarity is at least ``threshold``; ordered by position in ``a``, then in ``b``."""
    blocks = [np.zeros((2, 0), np.int64)]
    step = max(1, SIMILARITIES // max(1, len(b)))
    for start in range(0, len(a), step):
        i, j = np.nonzero(a[start : start + step] @ b.T >= threshold)
        blocks.append(np.stack([start + i, j]))
    i, j = np.concatenate(blocks, axis=1)
    return i, j


def read_set(tables: Collection[str], hashes: str, vectors: str | None) -> tuple[Set, list[np.ndarray]]:
    """The images of some tables, each once, with what the detectors made of them, and the places in it of the images of
    each table."""
    table, places = images.read_distinct(*tables)
    embedded = embeddings.read(vectors, table) if vectors is not None and len(table) else None
    return Set(table, image_hashes.read(hashes, table), embedded), places


def audit_files(
    folder: str | Path,
    names: Sequence[str],
    ratios: Sequence[float],
    threshold: float | None,
    threads: int,
    *,
    added: Sequence[str],
    added_hashes: str,
    added_vectors: Sequence[str],
    references: Sequence[str],
    hashes: Sequence[str],
    vectors: Sequence[str],
) -> None:
    """:func:`audit` of a method from files: the tables of the sets that its runs ``added`` come ratio by ratio; tables,
    hashes and vectors of the reference sets in the order of their ``names``; no vectors without a second detector."""
    second = list(vectors) or [None] * len(names)
    mine, places = read_set(added, added_hashes, next(iter(added_vectors), None))
    audit(
        mine,
        {
            name: read_set([table], hash_file, vector_file)[0]
            for name, table, hash_file, vector_file in zip(names, references, hashes, second, strict=True)
        },
        folder,
        threshold=threshold,
        threads=threads,
        ratios={ratio: np.unique(np.concatenate(runs)) for ratio, runs in shares(ratios, places).items()},
    )


def audit(
    added: Set,
    references: Mapping[str, Set],
    folder: str | Path,
    radius: int = RADIUS,
    threshold: float | None = None,
    threads: int = 1,
    ratios: Mapping[float, Sequence[int]] | None = None,
) -> dict:
    """Compare added images with reference sets, e.g. ``{"test": ..., "validation": ...}`` (section 4.5).

    ``ratios`` says which of the added images (places in their table) belong to which augmentation ratio, the main one
    first, which people judge and the report describes; without it, all belong to one.

    A pair is a candidate when its hashes differ in fewer than ``radius`` bits or, with a second detector, when the
    cosine similarity of its embeddings is at least ``threshold``. Sets without images are left out.

    Writes ``candidates.parquet``, one row per pair of images of the main ratio, the closest first: added_id, class (of
    the added image), reference_set, reference_id, reference_class, distance (bits), similarity (null without a second
    detector), found_by (hash, embedding or both), and where both images are (added_path, added_offset, added_length,
    reference_path, ...); and ``summary.json``, which is also returned: ``{added, radius, threshold, references: {set:
    {images, pairs, added_images_with_candidate, reference_images_with_candidate, share}}, further: [{ratio, added,
    references}, ...]}``, where share is the fraction of reference images that have a candidate and ``further`` has the
    same for each further ratio. With a second detector each set also has ``agreement``: the pairs that hash and
    embedding found each, that both found, and both / either.
    """
    ratios = ratios or {1.0: range(len(added.table))}
    parts = {
        name: _compare(added, name, reference, radius, threshold, threads)
        for name, reference in references.items()
        if len(reference.table)
    }
    sizes = {name: len(references[name].table) for name in parts}
    main, *further = [
        _counted(ratio, len(places), _of_images(parts, places, len(added.table)), sizes, threshold is not None)
        for ratio, places in ratios.items()
    ]
    summary = {"added": main["added"], "radius": radius, "threshold": threshold, "references": main["references"]}
    summary["further"] = further
    candidates = _of_images(parts, next(iter(ratios.values())), len(added.table)).values()
    empty = Set(added.table.iloc[:0], added.hashes[:0])
    nothing = _candidates(empty, "", empty, np.zeros(0, np.int64), np.zeros(0, np.int64), ([], [], []))
    table = pd.concat([part for part in candidates if len(part)] or [nothing], ignore_index=True)
    folder = Path(folder)
    with whole(folder / "candidates.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    write_json(folder / "summary.json", summary)
    return summary


def _of_images(parts: Mapping[str, pd.DataFrame], places: Sequence[int], count: int) -> dict[str, pd.DataFrame]:
    """The candidates, of ``count`` added images, of those at some ``places``; they are indexed by the added image."""
    wanted = np.zeros(count, bool)
    wanted[np.asarray(places, np.int64)] = True
    return {name: part[wanted[part.index]] for name, part in parts.items()}


def _counted(ratio: float, added: int, parts: Mapping, sizes: Mapping[str, int], detected: bool) -> dict:
    """What is counted of the added images of a ratio; ``parts``: reference set -> candidates, ``sizes``: its images."""
    sets = {name: _counts(part, sizes[name], detected) for name, part in parts.items()}
    return {"ratio": ratio, "added": added, "references": sets}


def _compare(added: Set, name: str, reference: Set, radius: int, threshold: float | None, threads: int):
    i, j, distance = pairs(added.hashes, reference.hashes, radius, threads)
    # A set without images has no vectors.
    if threshold is None or added.vectors is None or reference.vectors is None:
        return _candidates(added, name, reference, i, j, (distance, np.full(len(i), np.nan), ["hash"] * len(i)))
    width = len(reference.table)
    by_hash = i * width + j
    further_i, further_j = alike(added.vectors, reference.vectors, threshold)
    every = np.union1d(by_hash, further_i * width + further_j)
    i, j = every // width, every % width
    distance = _bits(added.hashes[i] ^ reference.hashes[j])
    similarity = np.einsum("ij,ij->i", added.vectors[i], reference.vectors[j]).astype(float)
    close, near = distance < radius, np.isin(every, further_i * width + further_j)
    by = np.select([close & near, close], ["both", "hash"], "embedding").astype(object)
    order = np.lexsort((j, i, -similarity, distance))
    return _candidates(added, name, reference, i[order], j[order], (distance[order], similarity[order], by[order]))


def _bits(words: np.ndarray) -> np.ndarray:
    """Number of bits that are set in each word, int64 (n,)."""
    return np.unpackbits(_bytes(words), axis=1).sum(axis=1, dtype=np.int64)


def _counts(part: pd.DataFrame, images: int, detected: bool) -> dict:
    touched = part["reference_id"].nunique()
    counts = {
        "images": images,
        "pairs": len(part),
        "added_images_with_candidate": part["added_id"].nunique(),
        "reference_images_with_candidate": touched,
        "share": touched / images,
    }
    return counts | ({"agreement": _agreement(part)} if detected else {})


def _agreement(candidates: pd.DataFrame) -> dict:
    counts = candidates["found_by"].value_counts()
    both = int(counts.get("both", 0))
    return {
        "hash": int(counts.get("hash", 0)) + both,
        "embedding": int(counts.get("embedding", 0)) + both,
        "both": both,
        "both_of_either": both / len(candidates) if len(candidates) else None,
    }


def _candidates(added: Set, name: str, reference: Set, i: np.ndarray, j: np.ndarray, measured: tuple) -> pd.DataFrame:
    """Pairs as rows, indexed by the place of the added image."""
    mine, theirs = _plain(added.table.iloc[i]), _plain(reference.table.iloc[j])
    distance, similarity, by = measured
    return pd.DataFrame(
        {
            "added_id": mine["image_id"].array,
            "class": mine["class"].array,
            "reference_set": pd.array([name] * len(mine), dtype=object),
            "reference_id": theirs["image_id"].array,
            "reference_class": theirs["class"].array,
            "distance": np.asarray(distance, np.int64),
            "similarity": np.asarray(similarity, float),
            "found_by": pd.array(list(by), dtype=object),
            "added_path": mine["path"].array,
            "added_offset": mine["offset"].array,
            "added_length": mine["length"].array,
            "reference_path": theirs["path"].array,
            "reference_offset": theirs["offset"].array,
            "reference_length": theirs["length"].array,
        },
        index=i,
    )


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with texts as Python has them, as other files have them too."""
    return rows.astype(dict.fromkeys(("image_id", "class", "path"), object))
