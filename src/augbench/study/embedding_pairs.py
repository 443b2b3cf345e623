"""Published embeddings: files of vectors, each with a Parquet twin that says where its images are.

``STEM.npz`` or ``STEM.npy`` beside ``STEM.parquet``, as DataComp has them, or ``img_emb/img_emb_N.npy`` with
``metadata/metadata_N.parquet``, as clip-retrieval writes them; the rows of both are in the same order.
"""

import math
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from augbench.core import files
from augbench.core.files import BadInput
from augbench.images import folders

VECTORS = (".npy", ".npz")
METADATA = ".parquet"
LOCAL_HEADER = 30  # bytes before the name of an archive's member, the last four of which are lengths of what follows


class Pair(NamedTuple):
    """vectors, metadata : files of the same rows; array : the vectors' name in an npz."""

    vectors: Path
    metadata: Path
    array: str | None


def pairs(folder: str | Path, array: str | None = None) -> list[Pair]:
    """The pairs of a folder, sorted by the name of their vectors; of an npz with several arrays the one called
    ``array``. Raises BadInput when a file has no twin, or an array has to be named."""
    files_of = _files(Path(folder))
    twins = {_stem(file): file for file in files_of if file.suffix == METADATA}
    matched = []
    for file in (file for file in files_of if file.suffix in VECTORS):
        twin = twins.pop(_stem(file), None)
        if twin is None:
            raise BadInput(
                f"{_shown(file)} has no {files.printable(file.stem)}.parquet, with a row for each of its vectors; add "
                "it, or move the vectors elsewhere"
            )
        matched.append(Pair(file, twin, _array(file, array)))
    if twins:
        raise BadInput(
            f"{_shown(min(twins.values()))} has no .npy or .npz of its vectors; add it, or move it elsewhere"
        )
    if not matched:
        raise BadInput(f"there is no *.npz or *.npy with embeddings in {files.printable(str(folder))}")
    return matched


def twins(folder: str | Path) -> list[Path]:
    """The Parquet files of a folder of pairs."""
    return [file for file in _files(Path(folder)) if file.suffix == METADATA]


def _files(folder: Path) -> list[Path]:
    """Those in the folder itself and in the folders that clip-retrieval makes."""
    places = [folder, *(folder / name for name in ("img_emb", "metadata") if (folder / name).is_dir())]
    entries = [Path(entry.path) for place in places for entry in folders.entries(place)]
    return sorted(file for file in entries if file.suffix in (*VECTORS, METADATA) and not folders.is_system(file.name))


def _stem(file: Path) -> str:
    """What both files of a pair are called."""
    return file.stem.removeprefix("img_emb_").removeprefix("metadata_")


def _shown(file: Path) -> str:
    return files.printable(str(file))


def _array(file: Path, wanted: str | None) -> str | None:
    if file.suffix != ".npz":
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{_shown(file)} cannot be read: {error}") from None
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    known = ", ".join(map(files.printable, names))
    raise BadInput(f"{_shown(file)} holds {known or 'nothing'}; name its embeddings, e.g. `pool: {{array: l14_img}}`")


def shape(pair: Pair) -> tuple[int, int]:
    """Rows and width of a pair's vectors, from their head. Raises BadInput unless they are float16 or float32 (n, d),
    and their twin has as many rows."""
    from pyarrow.parquet import ParquetFile

    try:
        size, kind = _head(pair)
        rows = ParquetFile(pair.metadata).metadata.num_rows
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadInput(f"{_shown(pair.vectors)} or its .parquet cannot be read: {str(error)[:200]}") from None
    if len(size) != 2 or kind not in ("float16", "float32"):
        raise BadInput(
            f"{_shown(pair.vectors)} holds {kind} {tuple(size)}, not embeddings, float16 or float32 (n, width)"
        )
    if rows != size[0]:
        raise BadInput(
            f"{_shown(pair.vectors)} has {size[0]:,} rows and {_shown(pair.metadata)} {rows:,}; they belong to "
            "different images"
        )
    return size[0], size[1]


def count(folder: str | Path, array: str | None) -> int:
    """The rows of a folder of pairs."""
    return sum(shape(pair)[0] for pair in pairs(folder, array))


def _head(pair: Pair) -> tuple[Sequence[int], str]:
    if pair.array is None:
        with open(pair.vectors, "rb") as handle:
            size, _, kind = _read_header(handle)
    else:
        with zipfile.ZipFile(pair.vectors) as archive, archive.open(f"{pair.array}.npy") as handle:
            size, _, kind = _read_header(handle)
    return size, str(kind)


def _read_header(handle) -> tuple[Sequence[int], bool, Any]:
    """Shape, whether in Fortran's order, and type of the array that a file in npy's format holds; its bytes follow."""
    from numpy.lib import format as npy

    version = npy.read_magic(handle)
    return (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(handle)


def vectors(pair: Pair):
    """The vectors of a pair, float16 or float32 (n, width), mapped into memory; only those of a compressed archive are
    read."""
    import numpy as np

    if pair.array is None:
        return np.load(pair.vectors, mmap_mode="r")
    with zipfile.ZipFile(pair.vectors) as archive:
        member = archive.getinfo(f"{pair.array}.npy")
        with archive.open(member) as handle:
            size, is_transposed, kind = _read_header(handle)
            if member.compress_type != zipfile.ZIP_STORED or not math.prod(size):
                return np.load(pair.vectors)[pair.array]
            begin = handle.tell()
    with open(pair.vectors, "rb") as file:
        file.seek(member.header_offset)
        head = file.read(LOCAL_HEADER)
    begin += member.header_offset + LOCAL_HEADER + sum(struct.unpack("<HH", head[-4:]))
    return np.memmap(pair.vectors, kind, "r", begin, tuple(size), "F" if is_transposed else "C")


def check(folder: str | Path, array: str | None, clip: str = "", width: int | None = None) -> int:
    """The rows of a folder of pairs. Raises BadInput unless all are of one width, that of the CLIP where it is known,
    and say where their images are."""
    from pyarrow.parquet import read_schema

    total = 0
    for pair in pairs(folder, array):
        rows, wide = shape(pair)
        if width and wide != width:
            raise BadInput(
                f"{_shown(pair.vectors)} has vectors of width {wide}, but "
                + (f"the CLIP {clip} has width {width}; name the CLIP that they were made with" if clip else
                   f"others have width {width}; they are not of one CLIP")
            )  # fmt: skip
        width, total = wide, total + rows
        names = read_schema(pair.metadata).names
        if not {"url", "URL"} & set(names):
            raise BadInput(f"{_shown(pair.metadata)} has no column url (it has {files.printable(', '.join(names))})")
    return total
