"""Stable Diffusion v1.4's exact architecture at 512 pixels, with random weights: each stage on the card at hand, also
with the memory of a small one."""

import os
import signal
import tempfile
from pathlib import Path

import gpu_stages
import numpy as np
import pytest
import torch
from gpu_stages import V100, card
from random_pipelines import PARAMETERS, parameters

from augbench.diffusion import trainer

pytestmark = pytest.mark.slow


@pytest.fixture
def out(full):
    """A folder beside the material, where there is room for states of 10 GB."""
    with tempfile.TemporaryDirectory(dir=full.folder) as folder:
        yield Path(folder)


def test_it_is_stable_diffusion(full):
    if torch.cuda.is_available():
        assert parameters(full.pipeline) == PARAMETERS


def test_latents_are_those_of_512_pixels_and_the_same_twice(full, out):
    with card(V100):
        first = gpu_stages.encode(full, out)
    assert first["parameters"].shape == (32, 8, full.side // 8, full.side // 8) or not torch.cuda.is_available()
    assert all(np.isfinite(values).all() for values in first.values())
    again = gpu_stages.encode(full, out)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    with card(3):  # 16 images at a time do not fit
        halved = gpu_stages.encode(full, out)
    assert all(np.abs(first[name] - halved[name]).mean() < 1e-2 * np.abs(first[name]).mean() for name in first)


def test_a_conditioning_is_the_same_twice_also_on_a_small_card(full, out, digest):
    for name, gib in (("first", V100), ("second", 80)):
        with card(gib):
            gpu_stages.finetune(full, out / name, "ft_conditioning", epochs=1, batch_size=16, images_at_a_time=8)
    assert digest(out / "first") == digest(out / "second")


def test_the_denoiser_is_trained_on_16_gb_ended_and_resumed_to_the_same_bytes(full, out, digest, monkeypatch):
    settings = {"epochs": 1, "batch_size": 16, "images_at_a_time": 4}
    with card(V100):
        gpu_stages.finetune(full, out / "straight", "imagic", **settings)
        straight = digest(out / "straight")
        with monkeypatch.context() as patch, pytest.raises(SystemExit, match="143"):
            original = trainer.Trainer.step

            def step(*arguments, **keywords):
                os.kill(os.getpid(), signal.SIGTERM)
                return original(*arguments, **keywords)

            patch.setattr(trainer.Trainer, "step", step)
            gpu_stages.finetune(full, out / "ended", "imagic", **settings)
        gpu_stages.finetune(full, out / "ended", "imagic", **settings)
    assert digest(out / "ended") == straight


def test_a_batch_too_large_for_the_card_is_halved_and_trained_on(full, out):
    """16 images at a time without gradient checkpointing take 17 GiB or so."""
    settings = {"epochs": 1, "batch_size": 16, "images_at_a_time": 16, "gradient_checkpointing": False}
    losses = {}
    for gib in (80, 11.6):
        with card(gib):
            losses[gib] = gpu_stages.finetune(full, out / str(gib), "ft_conditioning", **settings)["train_loss"]
    assert losses[80] == pytest.approx(losses[11.6], rel=0.01)


def test_images_are_the_same_twice_and_not_black(full, out, digest):
    for name in ("first", "second"):
        (out / name).mkdir()
        pictures = gpu_stages.draw(full, out / name, "clip_prompts", count=8)["pixels"]
    assert digest(out / "first")["shard.tar"] == digest(out / "second")["shard.tar"]
    assert all(picture.std() > 0 for picture in pictures)


def test_a_batch_too_large_for_the_card_is_halved_and_drawn(full, out):
    drawn = {}
    for gib in (80, 6):
        (out / str(gib)).mkdir()
        with card(gib):
            drawn[gib] = gpu_stages.draw(full, out / str(gib), "clip_prompts", count=8, steps=2)["pixels"]
    assert np.abs(drawn[80] - drawn[6]).mean() < 1  # of 255: low bits depend on how many are drawn together


def test_a_classifiers_batch_too_large_for_the_card_is_a_sentence(full, out):
    """Half a batch has other statistics: that is for the user to say."""
    if not torch.cuda.is_available():
        pytest.skip("a CPU's memory is not cut")
    with card(1.2), pytest.raises(RuntimeError, match="does not suffice for the 32 images of a batch; write a lower"):
        gpu_stages.classify(full, out, model="resnet50", image_size=224, batch_size=32)
