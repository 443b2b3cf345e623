"""Scores by a real CLIP, a real classifier and real hashes, against transformers, imagehash and that classifier."""

import imagehash
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPModel, CLIPTokenizer

from augbench import images
from augbench.audit import hashes as image_hashes
from augbench.classifier.networks import Network
from augbench.classifier.scoring import confidences
from augbench.core import files
from augbench.images import embeddings
from augbench.models import clip
from augbench.report import scores
from augbench.study.sections.classifier import Classifier

KEYS = ["zero", "one"]
SETTINGS = Classifier(model="small_cnn", image_size=32, workers=0)


@pytest.fixture
def scored(world, tmp_path):
    """The splits, and the scores of some images of the pool, of which the first repeats a training image."""
    name = f"hf_clip:{world.clip}"
    pool = images.read(world.web)
    pool["class"] = [KEYS[i % 2] for i in range(len(pool))]
    parts = {"train": pool[:10], "validation": pool[10:15], "test": pool[15:20], "added": pool[20:32]}
    repeated = parts["train"].iloc[[3]].assign(image_id="again", **{"class": "zero"})
    parts["added"] = pd.concat([repeated, parts["added"]], ignore_index=True)
    model = clip.Clip(name)
    for part, table in parts.items():
        images.write(tmp_path / part, table)
        image_hashes.write(tmp_path / f"{part}-hashes", table, image_hashes.hashes(table))
        vectors = clip.embed(table, model.pictures, lambda *_: None)
        embeddings.write(tmp_path / f"{part}-vectors", table, vectors)
    classes = pd.DataFrame({"class": KEYS, "lemmas": ["nought, zero", "one"], "hypernyms": "", "definition": ""})
    files.write_csv(tmp_path / "classes.csv", classes.assign(train=5, excluded=""))
    torch.manual_seed(0)
    (tmp_path / "judge").mkdir()
    save_file(Network(Classifier(model="small_cnn"), 2).weights(), tmp_path / "judge" / "best.safetensors")
    held_out = ["validation", "test"]
    inputs = {"tables": ["added"], "train": "train", "held_out": held_out, "train_hashes": "train-hashes"}
    inputs |= {"held_out_hashes": [f"{part}-hashes" for part in held_out], "train_vectors": ["train-vectors"]}
    inputs |= {"held_out_vectors": [f"{part}-vectors" for part in held_out], "clip": [str(world.clip)]}
    inputs |= {"classes": "classes.csv", "judge": "judge/best.safetensors"}
    inputs = {
        key: [str(tmp_path / each) for each in value] if isinstance(value, list) else str(tmp_path / value)
        for key, value in inputs.items()
    }
    settings = {"clip_name": name, "embedder": "clip", "image_size": 288, "threads": 1}
    path = tmp_path / "scores.parquet"
    scores.write_method(path, scores.Inputs(**inputs), SETTINGS, **settings, progress=lambda *_: None)
    return parts, pd.read_parquet(path)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_scores_are_those_of_the_models(world, scored, tmp_path):
    parts, table = scored
    model, tokenizer = CLIPModel.from_pretrained(world.clip).eval(), CLIPTokenizer.from_pretrained(world.clip)
    prepare = clip.Clip(f"hf_clip:{world.clip}").prepare

    def seen(rows):
        pictures = torch.stack([prepare(images.load(row)) for row in rows.itertuples()]).reshape(len(rows), 3, 32, 32)
        with torch.inference_mode():
            return unit(model.get_image_features(pixel_values=pictures).pooler_output.numpy())

    texts = tokenizer(["A photo of nought, zero.", "A photo of one."], padding=True, return_tensors="pt")
    with torch.inference_mode():
        prompts = unit(model.get_text_features(**texts).pooler_output.numpy())
    mine, train = seen(parts["added"]), seen(parts["train"])
    held_out = seen(pd.concat([parts["validation"], parts["test"]]))
    own = np.array([KEYS.index(key) for key in parts["added"]["class"]])
    means = unit(np.stack([train[k::2].mean(0) for k in range(2)]))
    assert table["clip"].to_numpy() == pytest.approx(np.einsum("ij,ij->i", mine, prompts[own]), abs=1e-5)
    assert table["clip_images"].to_numpy() == pytest.approx(np.einsum("ij,ij->i", mine, means[own]), abs=1e-5)
    assert table["train_distance"].to_numpy() == pytest.approx(1 - (mine @ train.T).max(1), abs=1e-5)
    assert table["held_out_distance"].to_numpy() == pytest.approx(1 - (mine @ held_out.T).max(1), abs=1e-5)
    hashes = {part: [imagehash.phash(images.load(row)) for row in rows.itertuples()] for part, rows in parts.items()}
    bits = [min(one - other for other in hashes["train"]) for one in hashes["added"]]
    assert table["train_bits"].tolist() == bits and bits[0] == 0
    assert table["train_bits_id"][0] == table["train_distance_id"][0] == parts["train"]["image_id"].iloc[3]
    confidence = confidences(tmp_path / "judge", KEYS, SETTINGS)(parts["added"])
    assert table["confidence"].to_numpy() == pytest.approx(confidence, abs=1e-6)
