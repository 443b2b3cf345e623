"""Images as vectors, in which likeness is close: kept as Parquet, found by their image."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from augbench import images
from augbench.core.files import whole


def write(path: str | Path, table: pd.DataFrame, vectors: np.ndarray) -> None:
    """Write embeddings, float32 (n, width), of a table's images as Parquet with the columns image_id and vector."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    with whole(path) as temporary:
        pq.write_table(pa.table({"image_id": pa.array(table["image_id"].astype(str)), "vector": column}), temporary)


def read(path: str | Path, table: pd.DataFrame) -> np.ndarray:
    """The embeddings of a table's images, float32 (n, width), in its order. Raises ValueError when one has none."""
    stored = pq.read_table(path).combine_chunks()
    column = stored["vector"].combine_chunks() if isinstance(stored["vector"], pa.ChunkedArray) else stored["vector"]
    width = stored.schema.field("vector").type.list_size
    vectors = column.flatten().to_numpy().reshape(-1, width)
    places = images.places_of(table["image_id"], stored["image_id"])
    if (places < 0).any():
        raise ValueError(f"{path} has no embedding of {table['image_id'].iloc[int(np.argmin(places))]}")
    return vectors[places]
