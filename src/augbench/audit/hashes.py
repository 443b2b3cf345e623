"""Perceptual hashes of images: computed once per set of images, kept, and compared by the audit."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from augbench import images
from augbench.core.files import whole

SIDE = 32  # pixels of the grey image whose DCT is taken
LOW = 8  # lowest frequencies of it, in both directions: 64 bits
BATCH = 256  # images at a time, of which the DCT is taken in one call


def hashes(
    table: pd.DataFrame, threads: int = 1, progress: Callable[[int, int, str], object] = lambda *_: None
) -> np.ndarray:
    """Perceptual hashes of the images of a table, uint64 (n,).

    Bit for bit those of ``imagehash.phash`` (Zauner, 2010; paper, section 4.5): an 8x8 DCT of a 32x32 grey image
    against its median; the first of the 64 bits is the highest. The hash does not depend on ``threads``. Raises
    ValueError naming the image that cannot be read.
    """
    rows = images.References(table)
    order = rows.reading_order()
    values = np.zeros(len(rows), np.uint64)
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for places in (order[start : start + BATCH] for start in range(0, len(order), BATCH)):
            batch = [rows[place] for place in places]
            # A batch is a whole number of SIMD vectors, so the DCT's low bits are those of one image at a time.
            small = np.stack(list(pool.map(shrunk, batch) if threads > 1 else map(shrunk, batch)))
            values[places] = of_pixels(small)
            done += len(batch)
            progress(done, len(rows), "images hashed")
    return values


def shrunk(row) -> np.ndarray:
    """The grey image of 32x32 pixels that is hashed, uint8 (32, 32)."""
    from PIL import Image

    grey = images.grey(images.load_bytes(row), images.name_of(row))
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def of_pixels(pixels: np.ndarray) -> np.ndarray:
    """Hashes, uint64 (n,), of grey images, uint8 (n, 32, 32)."""
    from scipy.fftpack import dct

    columns = dct(pixels, axis=1)[:, :LOW]
    low = dct(columns, axis=2)[:, :, :LOW].reshape(len(pixels), LOW * LOW)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(-1)


def write(path: str | Path, table: pd.DataFrame, values: np.ndarray) -> None:
    """Write the hashes, uint64 (n,), of a table's images as Parquet with the columns image_id and hash."""
    with whole(path) as temporary:
        pd.DataFrame({"image_id": table["image_id"].astype(str).array, "hash": values}).to_parquet(
            temporary, index=False
        )


def read(path: str | Path, table: pd.DataFrame) -> np.ndarray:
    """The hashes of a table's images, uint64 (n,), in its order. Raises ValueError when one has none."""
    known = pq.read_table(path)
    places = images.places_of(table["image_id"], known["image_id"])
    if (places < 0).any():
        raise ValueError(f"{path} has no hash of {table['image_id'].iloc[int(np.argmin(places))]}")
    return known["hash"].to_numpy()[places]
