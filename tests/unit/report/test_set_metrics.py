"""Metrics of image sets against independent implementations, and planted sets of which each moves the right way."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from augbench.report import set_metrics
from augbench.report.set_metrics import NEIGHBOURS, Kept, Sample


def measured(real, added, seed=0):
    return set_metrics.measure(Sample(real), Sample(added), np.random.default_rng(seed))


def directly(real, added):
    """The formulas, by scikit-learn's kernel, neighbours and distances, and loops over pairs."""
    count, width = real.shape
    kernel = {"degree": 3, "gamma": 1 / width, "coef0": 1}
    own = [polynomial_kernel(each, **kernel) for each in (real, added)]
    pairs = [sum(k[i, j] for i in range(count) for j in range(count) if i != j) / (count * (count - 1)) for k in own]
    kid = sum(pairs) - 2 * polynomial_kernel(real, added, **kernel).mean()
    balls = [NearestNeighbors(n_neighbors=NEIGHBOURS).fit(each).kneighbors()[0][:, -1] for each in (real, added)]
    distance = euclidean_distances(real, added)
    inside = [[distance[i, j] < balls[0][i] for j in range(count)] for i in range(count)]
    unit = added / np.linalg.norm(added, axis=1, keepdims=True)
    values = np.linalg.svd(unit, compute_uv=False) ** 2 / count
    return (
        kid,
        np.mean([any(row[j] for row in inside) for j in range(count)]),
        np.mean([any(distance[i, j] < balls[1][j] for j in range(count)) for i in range(count)]),
        np.sum(inside) / (NEIGHBOURS * count),
        np.mean([any(row) for row in inside]),
        np.exp(-sum(value * np.log(value) for value in values if value > 1e-15)),
    )


@pytest.mark.parametrize(("count", "width"), [(60, 7), (40, 90)])
def test_they_are_the_formulas(count, width):
    random = np.random.default_rng(count)
    real, added = random.normal(size=(count, width)), random.normal(0.2, 1.1, (count, width))
    assert measured(real, added) == pytest.approx(directly(real, added), rel=1e-6, abs=1e-9)


def test_the_kid_of_large_sets_is_a_mean_over_subsets(monkeypatch):
    """Of subsets of all images it is the KID of the sets; of smaller ones it is near, and is drawn by the generator."""
    random = np.random.default_rng(1)
    real, added = random.normal(size=(400, 6)), random.normal(0.5, 1, (400, 6))
    whole = measured(real, added).kid
    monkeypatch.setattr(set_metrics, "SUBSET", 200)
    means = [measured(real, added, seed).kid for seed in (1, 1, 2)]
    assert means[0] == means[1] != means[2]
    assert means == pytest.approx([whole] * 3, rel=0.05)


def test_of_sets_of_one_distribution_nothing_stands_out():
    random = np.random.default_rng(2)
    metrics = measured(random.normal(size=(500, 4)), random.normal(size=(500, 4)))
    assert abs(metrics.kid) < 0.1 and min(metrics.precision, metrics.recall, metrics.coverage) > 0.9
    assert metrics.density == pytest.approx(1, abs=0.1)


def test_planted_sets_move_each_metric_the_right_way():
    random = np.random.default_rng(3)
    real, alike = random.normal(size=(200, 8)), random.normal(size=(200, 8))
    plain = measured(real, alike)
    # Another class altogether: none of its images is among real ones.
    far = measured(real, alike + 20)
    assert far.kid > plain.kid + 1 and (far.precision, far.density, far.coverage, far.recall) == (0, 0, 0, 0)
    # Half of the images are copies of one: fewer different ones, and they cover fewer real ones.
    copies = measured(real, np.concatenate([alike[:100], np.repeat(alike[:1], 100, 0)]))
    assert copies.vendi < 0.8 * plain.vendi and copies.coverage < plain.coverage and copies.recall < plain.recall
    assert set_metrics.vendi(np.repeat(alike[:1], 100, 0)) == pytest.approx(1)
    assert set_metrics.vendi(np.eye(30)) == pytest.approx(30)
    # Copies of real images: each is among them, and the mean distance is as small as can be.
    same = measured(real, real)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1) and same.kid < plain.kid
    # A mode that is left out costs coverage and recall, not precision.
    modes = np.concatenate([real[:100], real[100:] + 30])
    half = measured(modes, np.concatenate([alike[:100], alike[100:]]))
    assert half.precision > 0.8 and half.recall < 0.6 and half.coverage < 0.6


def test_samples_are_of_one_size():
    assert set_metrics.sample_size([9000, 7000]) == 5000
    assert set_metrics.sample_size([600, 40, 3]) == 40  # a set of three images has no neighbours to speak of
    assert set_metrics.sample_size([3, 0]) == 0
    places = set_metrics.drawn(1000, 50, 1, "mine")
    assert len(set(places)) == 50 and (np.diff(places) > 0).all()
    assert (places == set_metrics.drawn(1000, 50, 1, "mine")).all()
    assert (places != set_metrics.drawn(1000, 50, 2, "mine")).any()
    with pytest.raises(ValueError, match="same size"):
        measured(np.zeros((10, 2)), np.zeros((9, 2)))
    with pytest.raises(ValueError, match="more than 5 images"):
        Sample(np.zeros((5, 2)))


def test_of_features_that_pass_by_only_the_sample_is_kept():
    features = np.arange(40.0).reshape(20, 2)
    places = [0, 6, 7, 8, 9, 19]
    kept = Kept(places)
    passed = list(kept.passing((features[k : k + 7], k) for k in range(0, 20, 7)))
    assert [rest for _, rest in passed] == [0, 7, 14]
    assert (np.concatenate([each for each, _ in passed]) == features).all()
    assert (kept.sample().features == features[places]).all() and sum(map(len, kept.parts)) == 6


def test_a_method_with_too_few_images_has_an_empty_row(tmp_path):
    table = set_metrics.table({"a": measured(np.eye(9), np.eye(9)), "b": None}, "clip", 9)
    assert table.columns.tolist() == set_metrics.COLUMNS
    assert table.iloc[0]["vendi"] == pytest.approx(9, abs=1e-4) and pd.isna(table.iloc[1]["kid"])


def test_a_timm_model_of_this_machine_gives_features(tmp_path):
    timm = pytest.importorskip("timm")
    from PIL import Image

    from augbench.study import encoders

    model = timm.create_model("test_vit", num_classes=3)
    timm.models.save_for_hf(model, tmp_path / "model", safe_serialization=True)
    encoder, name = encoders.find(f"timm/local-dir:{tmp_path / 'model'}")
    encoders.check(f"timm/local-dir:{tmp_path / 'model'}")
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    embed = encoder.embedder(name, load_clip=None)
    features = embed(pictures)
    assert features.shape == (2, json.loads((tmp_path / "model" / "config.json").read_text())["num_features"])
    assert np.isfinite(features).all() and (features[0] != features[1]).any()
    assert embed(pictures[1:]) == pytest.approx(features[1:], abs=1e-5)
    with pytest.raises(ValueError, match="no config.json"):
        encoders.check(f"timm/local-dir:{tmp_path}")
    for text, message in (("tim/x", "did you mean 'timm'"), ("timm", "written as"), ("clip/x", "written as `clip`")):
        with pytest.raises(ValueError, match=message):
            encoders.find(text)


def test_a_study_is_measured_in_the_eyes_of_a_timm_model(tmp_path):
    """A whole job, against the features that timm itself gives of the same images: all 8 added ones, and 8 of the real
    ones, which are chosen as the study's seed says."""
    timm = pytest.importorskip("timm")
    import torch
    from random_pipelines import write_classes, write_pictures
    from safetensors.torch import save_file

    from augbench import images
    from augbench.classifier.networks import Network
    from augbench.models import clip
    from augbench.report import domain_gap
    from augbench.study import encoders
    from augbench.study.sections.classifier import Classifier

    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=3).eval()
    timm.models.save_for_hf(network, tmp_path / "model", safe_serialization=True)
    tables = {name: write_pictures(tmp_path / name, 40, count) for name, count in (("test", 12), ("added", 8))}
    for name, table in tables.items():
        images.write(tmp_path / f"{name}.parquet", table)
    write_classes(tmp_path / "classes.csv")
    (tmp_path / "judge").mkdir()
    settings = Classifier(model="small_cnn", image_size=32, workers=0)
    save_file(Network(settings, 2).weights(), tmp_path / "judge" / "best.safetensors")
    (tmp_path / "judge" / "metrics.json").write_text('{"accuracy": 50.0}')
    text = f"timm/local-dir:{tmp_path / 'model'}"
    encoder, model = encoders.find(text)
    embedder = encoder.embedder(model, load_clip=None)
    domain_gap.write(
        tmp_path / "gap.csv", tmp_path / "metrics.csv", ["mine"],
        settings.model_dump(), text, 7,
        classes=str(tmp_path / "classes.csv"), test=str(tmp_path / "test.parquet"),
        metrics=str(tmp_path / "judge" / "metrics.json"), weights=str(tmp_path / "judge" / "best.safetensors"),
        added=[str(tmp_path / "added.parquet")], embed=lambda table: clip.embed(table, embedder, lambda *_: None),
    )  # fmt: skip
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)

    def features(table):
        pixels = torch.stack([prepare(images.load(row)) for row in table.itertuples()])
        with torch.inference_mode():
            return network.forward_head(network.forward_features(pixels), pre_logits=True).numpy()

    chosen = set_metrics.drawn(12, 8, 7, "test")
    wanted = directly(features(tables["test"].iloc[chosen]), features(tables["added"]))
    row = pd.read_csv(tmp_path / "metrics.csv").iloc[0]
    assert (row["method"], row["encoder"], row["images"]) == ("mine", text, 8)
    assert row[list(set_metrics.NAMES)].to_numpy(float) == pytest.approx(np.array(wanted), rel=1e-3, abs=1e-4)
