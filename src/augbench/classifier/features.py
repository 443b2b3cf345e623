"""Features of images: what the last layer of a pretrained network takes, computed once for each image."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from augbench import images
from augbench.classifier.networks import READ_BATCH, Network, parts_of
from augbench.classifier.scoring import evaluation_batches
from augbench.core import finite
from augbench.core.gpu_memory import Portions
from augbench.images import embeddings
from augbench.study.sections.classifier import Classifier

BATCH = 2 * READ_BATCH  # images that a network takes at a time
Progress = Callable[[int, int, str], None]


def write(
    path: str | Path,
    tables: Sequence[str | Path],
    settings: Classifier,
    progress: Progress = lambda done, total, note: None,
) -> None:
    """Write the features of the distinct images of some tables, see :mod:`augbench.images.embeddings`."""
    torch.set_num_threads(settings.threads)
    table, _ = images.read_distinct(*tables)
    embeddings.write(path, table, encode(Network(settings, 1), table, settings.workers, progress))


def encode(
    network: Network,
    table: pd.DataFrame,
    workers: int | None,
    progress: Progress = lambda done, total, note: None,
) -> np.ndarray:
    """Features of a table's images as they are scored, float32 (n, d). Raises RuntimeError naming an image of which the
    network makes no numbers, ValueError naming one that cannot be read."""
    data = evaluation_batches(table, network.view, workers)
    parts = parts_of(range(len(data)), BATCH)
    portions = Portions(BATCH, "images to encode", "name a smaller model")
    network.module.eval()
    encoded = []
    with torch.inference_mode():
        for part, pixels in zip(parts, network.read(data, parts), strict=True):
            batches = portions(lambda batch: network.features(network.normalised(batch)).flatten(1).cpu(), pixels)
            encoded.append(torch.cat(batches).numpy())
            names = [data.rows[place].image_id for place in part]
            finite.check(encoded[-1], "the network of the probe", [f"the image {name}" for name in names])
            progress(part.stop, len(data), "images encoded")
    return np.concatenate(encoded) if encoded else np.zeros((0, 1), np.float32)


class Features:
    """Features by the names of images: those in ``files`` are read, others computed when they are asked for first.

    ``files`` are pairs: a file of :func:`write`, and the tables that it is of.
    """

    def __init__(self, network: Network, workers: int | None, files: Iterable[tuple] = ()):
        self.network, self.workers, self.known = network, workers, {}
        for path, tables in files:
            table, _ = images.read_distinct(*tables)
            self._keep(table, embeddings.read(path, table))

    def of(self, table: pd.DataFrame) -> np.ndarray:
        """Features of a table's images in its order, float32 (n, d)."""
        fresh = table[~table["image_id"].isin(list(self.known))].drop_duplicates("image_id")
        if len(fresh):
            self._keep(fresh, encode(self.network, fresh, self.workers))
        return np.stack([self.known[name] for name in table["image_id"]])

    def _keep(self, table: pd.DataFrame, features: np.ndarray) -> None:
        self.known.update(zip(table["image_id"], features, strict=True))
