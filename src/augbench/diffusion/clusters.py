"""Clusters of a class's training images, each of which gets a conditioning of its own (paper, section 3.1)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from augbench import images
from augbench.core.files import whole
from augbench.core.seeds import derive
from augbench.models import clip


def embedder(name: str, clip_model: str | None) -> Callable[[list], object]:
    """What embeds a list of pictures: ``inception_v3``, or ``clip``, the CLIP ``clip_model``."""
    return inception_embeddings() if name == "inception_v3" else clip.Clip(clip_model).pictures


def inception_embeddings() -> Callable[[list], object]:
    """The pooled features of torchvision's Inception-v3, as in the paper; its weights are fetched."""
    import torch
    from torchvision.models import Inception_V3_Weights, inception_v3

    weights = Inception_V3_Weights.DEFAULT
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = inception_v3(weights=None, aux_logits=True, transform_input=True, init_weights=False)
    # Not torchvision's own way, which would unpickle whatever the file holds.
    model.load_state_dict(torch.hub.load_state_dict_from_url(weights.url, check_hash=True, weights_only=True))
    model.to(device).eval()
    model.fc = torch.nn.Identity()
    prepare = weights.transforms()

    def embed(pictures):
        with torch.inference_mode():
            return model(torch.stack([prepare(picture) for picture in pictures]).to(device)).float().cpu().numpy()

    return embed


def write(
    path: str | Path,
    train: str | Path,
    validation: str | Path,
    *,
    counts: list[int],
    embedder: Callable[[list], object],
    seed: int,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Embed the images of two image tables and write their clusters (Parquet), see :func:`cluster`."""
    tables = {"train": images.read(train), "validation": images.read(validation)}
    vectors = {name: clip.embed(table, embedder, progress) for name, table in tables.items()}
    with whole(path) as temporary:
        cluster(**tables, vectors=vectors, counts=counts, seed=seed).to_parquet(temporary, index=False)


def cluster(train: pd.DataFrame, validation: pd.DataFrame, vectors: dict, counts: list[int], seed: int) -> pd.DataFrame:
    """k-means inside each class, for every k in ``counts``; a validation image joins the nearest centre.

    ``vectors`` maps ``train`` and ``validation`` to embeddings (n, width), which are clustered as they are. Returns
    image_id, split, class, k, cluster. Clusters are numbered from 0 without gaps and each has a training image: a class
    with fewer than k different images has fewer clusters.
    """
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin
    from threadpoolctl import threadpool_limits

    tables, parts = {"train": train, "validation": validation}, []
    for key in dict.fromkeys(train["class"]):
        here = {name: np.flatnonzero(table["class"] == key) for name, table in tables.items()}
        points = {name: vectors[name][places] for name, places in here.items()}
        for k in counts:
            model = KMeans(min(k, len(here["train"])), n_init=10, random_state=derive(seed, "clusters", key, k) % 2**32)
            clusters = {"validation": np.zeros(0, int)}
            with threadpool_limits(1):  # sums in another order could move an image to another cluster
                # Where images are equal, k-means leaves clusters empty.
                kept, clusters["train"] = np.unique(model.fit_predict(points["train"]), return_inverse=True)
                if len(here["validation"]):
                    centres = model.cluster_centers_[kept]
                    clusters["validation"] = pairwise_distances_argmin(points["validation"], centres)
            for name, table in tables.items():
                members = table.iloc[here[name]][["image_id", "class"]]
                parts.append(members.assign(split=name, k=k, cluster=clusters[name]))
    return pd.concat(parts, ignore_index=True)


def read_sizes(path: str | Path, k: int) -> dict[str, list[int]]:
    """Class -> number of training images in each of its clusters."""
    members = pd.read_parquet(path)
    chosen = members[(members["k"] == k) & (members["split"] == "train")]
    return {
        str(key): group["cluster"].value_counts().sort_index().tolist()
        for key, group in chosen.groupby("class", sort=False)
    }


def read_members(path: str | Path, k: int, tables: dict[str, pd.DataFrame]) -> dict[str, list[int]]:
    """``train`` and ``validation`` -> the cluster of each image, in the order of these image tables."""
    members = pd.read_parquet(path)
    clusters = members[members["k"] == k].set_index(["split", "image_id"])["cluster"]
    return {name: [int(clusters[name, image]) for image in table["image_id"]] for name, table in tables.items()}
