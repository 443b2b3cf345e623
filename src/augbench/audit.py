"""Finds added images that may be copies of reference images, above all of the test set (paper, section 4.5).

What is found here are *candidates*: pairs of images whose perceptual hashes are close. Whether a pair is
a duplicate is for people to say.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from augbench import images
from augbench.files import whole, write_json

BITS = 64
RADIUS = 10  # bits; candidates differ in fewer, as in the paper
BLOCK = 4096  # queries at a time, which bounds the memory that their answers take


def hashes(table: pd.DataFrame) -> np.ndarray:
    """Perceptual hashes of the images of a table, uint64 (n,).

    ``imagehash.phash``: an 8x8 DCT of a 32x32 grey image against its median; the first of the 64 bits is
    the highest. Raises ValueError naming the image that cannot be read.
    """
    from imagehash import phash

    found = np.zeros((len(table), BITS // 8), np.uint8)
    for i, row in enumerate(table[["image_id", "path", "offset", "length"]].itertuples(index=False)):
        try:
            image = images.load(row)
        except OSError as error:
            raise ValueError(f"cannot read {row.image_id}: {error}") from error
        found[i] = np.packbits(phash(image, hash_size=8, highfreq_factor=4).hash.reshape(-1))
    return found.view(">u8").astype(np.uint64).reshape(-1)


def pairs(a: np.ndarray, b: np.ndarray, radius: int = RADIUS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of hashes that differ in fewer than ``radius`` bits, exactly.

    Returns positions in ``a`` and in ``b`` and the distances in bits, int64 each, ordered by distance,
    then by position in ``a``, then in ``b``.
    """
    import faiss

    found = [np.zeros((3, 0), np.int64)]
    index = faiss.IndexBinaryFlat(BITS)
    index.add(_bytes(b))
    for start in range(0, len(a), BLOCK):
        block = _bytes(a[start : start + BLOCK])
        limits, distance, j = index.range_search(block, radius)  # finds distance < radius, strictly
        i = start + np.repeat(np.arange(len(block)), np.diff(limits.astype(np.int64)))
        found.append(np.stack([i, j.astype(np.int64), distance.astype(np.int64)]))
    i, j, distance = np.concatenate(found, axis=1)
    order = np.lexsort((j, i, distance))
    return i[order], j[order], distance[order]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.uint64).view(np.uint8).reshape(-1, BITS // 8)


def audit(
    added: pd.DataFrame, references: Mapping[str, pd.DataFrame], folder: str | Path, radius: int = RADIUS
) -> dict:
    """Compare added images with reference sets, e.g. ``{"test": ..., "validation": ...}`` (section 4.5).

    Writes ``candidates.parquet``, one row per pair of images: added_id, class (of the added image),
    reference_set, reference_id, reference_class, distance (bits), and where both images are (added_path,
    added_offset, added_length, reference_path, ...); and ``summary.json``, which is also returned:
    ``{added, radius, references: {set: {images, pairs, added_images_with_candidate,
    reference_images_with_candidate, share}}}``, where share is the fraction of reference images that have
    a candidate. Raises ValueError naming an image that cannot be read.
    """
    mine = hashes(added)
    summary = {"added": len(added), "radius": radius, "references": {}}
    found = []
    for name, reference in references.items():
        i, j, distance = pairs(mine, hashes(reference), radius)
        found.append(_candidates(added.iloc[i], name, reference.iloc[j], distance))
        touched = len(np.unique(j))
        summary["references"][name] = {
            "images": len(reference),
            "pairs": len(i),
            "added_images_with_candidate": len(np.unique(i)),
            "reference_images_with_candidate": touched,
            "share": touched / len(reference) if len(reference) else 0.0,
        }
    nothing = _candidates(added.iloc[:0], "", added.iloc[:0], np.zeros(0, np.int64))
    candidates = pd.concat([part for part in found if len(part)] or [nothing], ignore_index=True)
    folder = Path(folder)
    with whole(folder / "candidates.parquet") as temporary:
        candidates.to_parquet(temporary, index=False)
    write_json(folder / "summary.json", summary)
    return summary


def _candidates(added: pd.DataFrame, name: str, reference: pd.DataFrame, distance: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "added_id": added["image_id"].array,
            "class": added["class"].array,
            "reference_set": pd.array([name] * len(distance), dtype=object),
            "reference_id": reference["image_id"].array,
            "reference_class": reference["class"].array,
            "distance": distance,
            "added_path": added["path"].array,
            "added_offset": added["offset"].array,
            "added_length": added["length"].array,
            "reference_path": reference["path"].array,
            "reference_offset": reference["offset"].array,
            "reference_length": reference["length"].array,
        }
    )
