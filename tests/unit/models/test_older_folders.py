"""Folders of models that versions of augbench with transformers 4 and diffusers 0.39 wrote are read as they were."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from augbench.models import backbones, clip, local_files

PROCESSOR = {  # as CLIPImageProcessor of transformers 4.57 saved it
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "CLIPProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 32},
}
SPECIAL = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}


def _older_tokenizer(folder, length: int) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL | {"unk_token": "<|endoftext|>"}))
    facts = SPECIAL | {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "errors": "replace"}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))


@pytest.fixture
def older(world, tmp_path):
    """The tiny world's CLIP and pipeline as they lay on the disk with transformers 4."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(world.clip, tmp_path / "clip")
    shutil.copytree(world.backbone, tmp_path / "backbone")
    (tmp_path / "clip" / "processor_config.json").unlink()
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    _older_tokenizer(tmp_path / "clip", 77)
    _older_tokenizer(tmp_path / "backbone" / "tokenizer", 20)
    (tmp_path / "backbone" / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    file = tmp_path / "backbone" / "safety_checker" / "model.safetensors"
    prefix = "vision_model."
    weights = {prefix * name.startswith(prefix) + name: tensor for name, tensor in load_file(file).items()}
    assert any(name.startswith(prefix * 2) for name in weights)
    save_file(weights, file, {"format": "pt"})
    text = load_file(tmp_path / "backbone" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in text)  # Stable Diffusion's layout, and still today's
    return tmp_path


def test_an_older_clip_gives_the_same_embeddings(world, older):
    local_files.check_clip(f"hf_clip:{older / 'clip'}")
    ours, theirs = (clip.Clip(f"hf_clip:{folder}") for folder in (world.clip, older / "clip"))
    texts = ["a photo of a seven", ""]
    assert np.array_equal(ours.texts(texts), theirs.texts(texts))
    pictures = [Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))]
    assert np.array_equal(ours.pictures(pictures), theirs.pictures(pictures))


def test_an_older_pipeline_gives_the_same_images_and_verdicts(world, older):
    import torch

    local_files.check_pipeline(older / "backbone")
    images = []
    for folder in (world.backbone, older / "backbone"):
        pipeline = backbones.load_pipeline(folder)
        made = pipeline("a seven", num_inference_steps=2, generator=torch.Generator().manual_seed(1)).images[0]
        images.append(np.asarray(made))
    assert np.array_equal(*images)
    checkers = [backbones.SafetyChecker(folder)._model for folder in (world.backbone, older / "backbone")]
    for ours, theirs in zip(*(checker.state_dict().values() for checker in checkers), strict=True):
        assert torch.equal(ours, theirs)
