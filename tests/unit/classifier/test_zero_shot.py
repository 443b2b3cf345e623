"""CLIP's zero-shot classification: vectors worked by hand, and a tiny CLIP against transformers alone."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from augbench import images
from augbench.classifier import zero_shot
from augbench.core import files
from augbench.models import class_prompts, clip
from augbench.study import prompts

ROWS = [
    {"class": "n0", "lemmas": "zero", "hypernyms": "", "definition": ""},
    {"class": "n1", "lemmas": "one", "hypernyms": "", "definition": ""},
    {"class": "n2", "lemmas": "two", "hypernyms": "", "definition": ""},
]


def test_an_image_is_of_the_class_with_the_largest_cosine():
    """Cosines of 0.8 and 0.6, then of 0 and 1; at a scale of 5 the logits of the first are 4 and 3."""
    pictures, of_classes = torch.tensor([[0.8, 0.6], [0.0, 1.0]]), torch.eye(2)
    labels, shares = zero_shot.classify(pictures, of_classes, 5.0)
    assert labels.tolist() == [0, 1]
    assert shares.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-5))])


def test_the_nearest_class_counts_where_probabilities_are_rounded_to_the_same_number():
    pictures, of_classes = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.0], [0.5 + 1e-7, 0.0]])
    assert zero_shot.classify(pictures, of_classes, 1e-3)[0].tolist() == [1]


def test_a_class_is_the_mean_of_its_prompts(monkeypatch):
    """Of (1, 0) and (0, 1), and of (0, 1) twice."""
    seen = []

    class Model:
        def texts(self, texts):
            seen.extend(texts)
            return np.array([[1, 0], [0, 1], [0, 1], [0, 1]], np.float32)

    monkeypatch.setattr(prompts, "templates", lambda conditioning: ["A {n}.", "No {n}."])
    vectors = class_prompts.embed(ROWS[:2], Model())
    assert seen == ["A zero.", "No zero.", "A one.", "No one."]
    assert vectors.dtype == np.float32
    assert vectors.tolist() == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [0, 1]]))


def test_predictions_are_those_of_transformers(world, tmp_path):
    name, table = f"hf_clip:{world.clip}", images.read(world.web)[:60]
    table["class"] = [ROWS[i % 3]["class"] for i in range(len(table))]
    loaded, noted = clip.Clip(name), []
    outputs = tmp_path / "metrics.json", tmp_path / "predictions.parquet"
    zero_shot.write(*outputs, table, ROWS, loaded, lambda *progress: noted.append(progress))

    model, tokenizer = CLIPModel.from_pretrained(world.clip).eval(), CLIPTokenizer.from_pretrained(world.clip)
    texts = ["A photo of zero.", "A photo of one.", "A photo of two."]
    pixels = torch.cat([loaded.prepare(images.load(row)) for row in table.itertuples()])
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt"), pixel_values=pixels).logits_per_image
    expected = [ROWS[place]["class"] for place in logits.argmax(1).tolist()]
    assert len(set(expected)) > 1

    scored = pd.read_parquet(outputs[1])
    assert list(scored.columns) == ["image_id", "class", "predicted", "correct", "confidence"]
    assert scored["image_id"].tolist() == table["image_id"].tolist()
    assert scored["predicted"].tolist() == expected
    assert scored["confidence"].to_numpy() == pytest.approx(logits.softmax(1).amax(1).numpy(), abs=1e-5)
    right = [one == two for one, two in zip(expected, table["class"], strict=True)]
    assert scored["correct"].tolist() == right
    assert files.read_json(outputs[0]) == {
        "accuracy": 100 * sum(right) / 60,
        "n_classes": 3,
        "n_test": 60,
        "model": name,
        "sha256": hashlib.sha256((Path(world.clip) / "model.safetensors").read_bytes()).hexdigest(),
        "prompts": ["A photo of {n}."],
    }
    assert noted[-1][:2] == (60, 60)


def test_a_clip_without_a_scale_has_the_upper_bound_of_all():
    model = clip.Clip.__new__(clip.Clip)
    model.model = torch.nn.Linear(1, 1)
    assert model.logit_scale == 100
    model.model.logit_scale = torch.nn.Parameter(torch.tensor(math.log(7)))
    assert model.logit_scale == pytest.approx(7)
