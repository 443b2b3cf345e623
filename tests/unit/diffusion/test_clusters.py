"""Clusters of images that were made in clusters."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import pairwise_distances_argmin

from augbench import images
from augbench.diffusion import clusters
from augbench.diffusion.sampling_plan import plan
from augbench.models import clip
from augbench.study.methods import Method

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Two classes with red, green and blue pictures: 6, 3 and 3 for training, one of each for validation."""
    folder = tmp_path_factory.mktemp("coloured")
    random = np.random.default_rng(0)
    made = {"train": [], "validation": []}
    for key in ("x", "y"):
        for split, counts in {"train": (6, 3, 3), "validation": (1, 1, 1)}.items():
            for (name, colour), count in zip(COLOURS.items(), counts, strict=True):
                for i in range(count):
                    path = folder / f"{key}-{split}-{name}-{i}.png"
                    pixels = np.array(colour) + random.normal(0, 8, (32, 32, 3))
                    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
                    made[split].append({"image_id": path.stem, "class": key, "path": str(path)})
    return {split: images.table(rows) for split, rows in made.items()}


@pytest.fixture(scope="module")
def found(tables, tmp_path_factory):
    def mean_colour(pictures):
        return np.stack([np.asarray(picture).mean((0, 1)) for picture in pictures])

    folder = tmp_path_factory.mktemp("clusters")
    for name, table in tables.items():
        images.write(folder / name, table)
    path = folder / "clusters.parquet"
    clusters.write(path, folder / "train", folder / "validation", counts=[3, 20], embedder=mean_colour, seed=1)
    return path


def test_clusters_are_the_colours(tables, found):
    members = clusters.read_members(found, 3, tables)
    for key in ("x", "y"):
        groups = {}
        for split, table in tables.items():
            for row, cluster in zip(table.itertuples(), members[split], strict=True):
                if row.image_id.startswith(key):
                    groups.setdefault(cluster, set()).add(row.image_id.split("-")[2])
        assert sorted(map(sorted, groups.values())) == [["blue"], ["green"], ["red"]]


def test_sizes_are_those_of_the_training_images(found):
    sizes = clusters.read_sizes(found, 3)
    assert list(sizes) == ["x", "y"]
    assert [sorted(row) for row in sizes.values()] == [[3, 3, 6]] * 2


def test_a_small_class_has_as_many_clusters_as_images(found):
    assert {key: sum(row) for key, row in clusters.read_sizes(found, 20).items()} == {"x": 12, "y": 12}
    assert all(len(row) <= 12 for row in clusters.read_sizes(found, 20).values())


def test_the_embeddings_are_clustered_and_not_their_directions():
    """Two groups in one direction from the origin, at lengths 1 and 10: their directions are one point."""
    lengths = [1.0, 1.1, 0.9, 10.0, 10.1, 9.9]
    train = pd.DataFrame({"image_id": list("abcdef"), "class": "x"})
    validation = pd.DataFrame({"image_id": ["v", "w"], "class": "x"})
    vectors = {"train": np.outer(lengths, [0.6, 0.8]), "validation": np.outer([2.0, 8.0], [0.6, 0.8])}
    found = clusters.cluster(train, validation, vectors, [2], seed=0).set_index("image_id")["cluster"]
    assert [set(found[list(group)]) for group in ("abcv", "defw")] in ([{0}, {1}], [{1}, {0}])


class Gaps:
    """k-means as it ends where images are equal: clusters 0, 1 and 3 have images, 2 and 4 a centre alone."""

    def __init__(self, *_, **__):
        self.cluster_centers_ = np.array([[0, 0], [0, 9], [1, 1], [9, 0], [0, 8]], float)

    def fit_predict(self, points):
        return pairwise_distances_argmin(
            points, np.where([[False], [False], [True], [False], [True]], 99, self.cluster_centers_)
        )


def test_what_is_learned_for_a_cluster_is_what_is_sampled_for_it(tmp_path, monkeypatch):
    """The rows of the learned conditionings by which training guides are those that sampling draws, as often."""
    monkeypatch.setattr("sklearn.cluster.KMeans", Gaps)
    points = np.array([[0, 0], [0, 9], [9, 0]], float)
    which = [0, 1, 2, 0, 0, 1, 2, 0, 0, 1, 1, 0]
    train = pd.DataFrame({"image_id": [f"t{i}" for i in range(12)], "class": "x"})
    validation = pd.DataFrame({"image_id": [f"v{i}" for i in range(3)], "class": "x"})
    vectors = {"train": points[which], "validation": np.array([[1, 1], [0, 8], [8, 0]], float)}
    path = tmp_path / "clusters.parquet"
    clusters.cluster(train, validation, vectors, [5], seed=0).to_parquet(path)
    members = clusters.read_members(path, 5, {"train": train, "validation": validation})
    assert members == {"train": which, "validation": [0, 1, 2]}
    row = {"title": "", "family": "", "start": "noise", "conditioning": "simple_prompt"}
    method = Method(**row, trained=["conditioning"], clusters=5)
    sizes = clusters.read_sizes(path, 5)
    rows = plan([{"class": "x", "lemmas": "x"}], [12], method, (1, "ft"), cluster_sizes=sizes)
    assert sorted(row["vector"] for row in rows) == sorted(row["cluster"] for row in rows) == sorted(which)


def test_the_trained_clip_embeds_images(world, tables):
    embedder = clusters.embedder("clip", f"hf_clip:{world.clip}")
    vectors = clip.embed(tables["train"], embedder, lambda *_: None)
    assert vectors.shape == (24, 16)
    colour = pd.Series([image.split("-")[2] for image in tables["train"]["image_id"]])
    likeness = vectors @ vectors.T
    same = np.equal.outer(colour.to_numpy(), colour.to_numpy())
    assert likeness[same].mean() > likeness[~same].mean()
