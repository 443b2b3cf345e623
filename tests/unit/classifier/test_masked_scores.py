"""On a test set that lacks classes, a classifier chooses among those that it has; by hand-worked logits."""

import math

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tinted import untrained

from augbench import images
from augbench.classifier import runs, scoring
from augbench.study.sections.classifier import Classifier

SETTINGS = Classifier(model="small_cnn", image_size=8, workers=0)


def classifier(folder, logits):
    """One that gives every image the same ``logits``."""
    module = untrained("small_cnn", len(logits))
    with torch.no_grad():
        module[-1].weight.zero_()
        module[-1].bias.copy_(torch.tensor(logits))
    folder.mkdir(parents=True)
    save_file(module.state_dict(), folder / "best.safetensors")
    return folder


def table(folder, *classes):
    rows = []
    for place, key in enumerate(classes):
        path = folder / f"{place}.png"
        Image.new("RGB", (8, 8), (place, 0, 0)).save(path)
        rows.append({"image_id": str(place), "class": key, "path": str(path)})
    return images.table(rows)


def test_logits_of_classes_that_a_set_lacks_are_masked(tmp_path):
    """Logits 3, 1, 2 and 0 of a, b, c and d. Among b and d, b has e / (e + 1) of the probability."""
    place, keys = classifier(tmp_path / "run", [3.0, 1.0, 2.0, 0.0]), ["a", "b", "c", "d"]
    found = scoring.predictions_among(place, table(tmp_path, "d", "b", "b"), keys, SETTINGS)
    assert list(found["predicted"]) == ["b", "b", "b"]
    assert list(found["correct"]) == [False, True, True]
    assert list(found["confidence"]) == pytest.approx(3 * [math.e / (math.e + 1)])
    # Of all classes none is masked: a has e^3 of 1 + e + e^2 + e^3.
    found = scoring.predictions_among(place, table(tmp_path, *keys), keys, SETTINGS)
    assert list(found["predicted"]) == 4 * ["a"]
    assert list(found["confidence"]) == pytest.approx(4 * [math.e**3 / sum(math.e**k for k in range(4))])
    found = scoring.predictions_among(place, table(tmp_path, "c"), keys, SETTINGS)
    assert list(found["confidence"]) == [1.0]


def test_images_of_classes_that_the_classifier_does_not_know_are_wrong(tmp_path):
    place = classifier(tmp_path / "run", [3.0, 1.0])
    found = scoring.predictions_among(place, table(tmp_path, "b", "z"), ["a", "b"], SETTINGS)
    assert list(zip(found["predicted"], found["correct"], strict=True)) == [("b", True), ("b", False)]
    with pytest.raises(ValueError, match="none of the 1 images has a class that the classifier of .*run knows"):
        scoring.predictions_among(place, table(tmp_path, "z"), ["a", "b"], SETTINGS)


def test_each_run_is_scored_with_its_own_classes(tmp_path):
    """The second run was trained without b, of which it added no image."""
    folders = [classifier(tmp_path / "1", [0.0, 1.0]), classifier(tmp_path / "2", [0.0])]
    added = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    images.write(added[0], table(tmp_path, "a", "b"))
    images.write(added[1], table(tmp_path, "a"))
    outputs = [tmp_path / "out" / f"run-{k}.parquet" for k in (1, 2)]
    runs.score_runs(SETTINGS, table(tmp_path, "a", "b"), ["a", "b"], added, folders, outputs)
    first, second = map(pd.read_parquet, outputs)
    assert list(first["predicted"]) == ["b", "b"] and list(second["predicted"]) == ["a", "a"]
    assert list(first.columns) == ["image_id", "class", "predicted", "correct", "confidence"]
