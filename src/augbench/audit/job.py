"""The audit of a method: reads what was computed of each set of images, and compares them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from augbench import images
from augbench.audit import embeddings, hashes
from augbench.audit.duplicates import Set, audit


def read_set(tables: Sequence[str | Path], hash_file: str | Path, vectors: str | Path | None = None) -> Set:
    """A set of images as the detectors see it; images that are in several tables count once."""
    table = images.read(*tables).drop_duplicates("image_id", ignore_index=True)
    embedded = embeddings.read(vectors, table) if len(table) and vectors else None
    return Set(table, hashes.read(hash_file, table), embedded)


def audit_method(
    added: Mapping[float, Sequence[str | Path]],
    hash_file: str | Path,
    references: Mapping[str, Set],
    folder: str | Path,
    *,
    vectors: str | Path | None = None,
    threshold: float | None = None,
    threads: int = 1,
) -> None:
    """Compare a method's added images with reference sets, see :func:`augbench.audit.duplicates.audit`.

    ``added``: augmentation ratio -> image tables, the main ratio first; ``hash_file`` and ``vectors`` are of them all
    """
    tables = [path for paths in added.values() for path in paths]
    ratios = {ratio: set(images.read(*paths)["image_id"]) for ratio, paths in added.items()}
    audit(read_set(tables, hash_file, vectors), references, folder, threshold=threshold, threads=threads, ratios=ratios)
