"""A model that gives no numbers is an error that names model and item, wherever in the work it is."""

import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sampled import KEY, METHOD, work
from tinted import CLASSES, SEED, SETTINGS, tinted, untrained, with_settings

from augbench import images
from augbench.classifier import scoring, training
from augbench.core import finite
from augbench.diffusion import latents, sampling, sampling_plan
from augbench.models import aesthetics, backbones, clip
from augbench.retrieval import embedding

pytestmark = pytest.mark.middle

NONE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", NONE)
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 5, 5)])
@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_the_item_is_named_wherever_it_is(value, shape, make):
    values = make(shape)
    finite.check(values, "the model", ["a", "b", "c", "d"])
    values[(2, *(-1 for _ in shape[1:]))] = value
    with pytest.raises(RuntimeError, match=r"the model gives NaN or infinite numbers for c$"):
        finite.check(values, "the model", ["a", "b", "c", "d"])
    values[1] = value
    with pytest.raises(RuntimeError, match="for b and 1 others; do this"):
        finite.check(values, "the model", ["a", "b", "c", "d"], "do this")


def test_no_items_are_no_error():
    finite.check(np.zeros((0, 3)), "the model", [])
    finite.check(torch.zeros(0, 3), "the model", [])


def test_a_classifier_that_diverges_is_an_error(tmp_path):
    sets = [tinted(tmp_path, name, 12) for name in ("train", "validation", "test")]
    with pytest.raises(RuntimeError, match=r"loss is not finite in epoch 1; use a lower `classifier: {learning_rate"):
        training.train(*sets, CLASSES, tmp_path / "out", with_settings(learning_rate=1e30, max_epochs=2), seed=SEED)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_classifier_whose_output_is_none_scores_nothing(tmp_path):
    table = tinted(tmp_path, "test", 4)
    network = untrained(SETTINGS.model, len(CLASSES))
    weights = network.state_dict()
    weights[next(iter(weights))][0] = math.nan
    save_file(weights, tmp_path / "best.safetensors")
    with pytest.raises(RuntimeError, match="the classifier gives NaN or infinite numbers for the image test-0"):
        list(scoring.examiner(tmp_path, CLASSES, SETTINGS)(table))


def damaged(source, target, part, value=math.nan):
    """A copy of a model's folder with one weight that is none."""
    shutil.copytree(source, target)
    (file,) = (target / part).glob("*.safetensors")
    tensors = load_file(file)
    name = max(tensors, key=lambda name: tensors[name].numel() if tensors[name].is_floating_point() else 0)
    if part == "vae":  # of the half that decodes, or the one that encodes
        name = next(name for name in tensors if name.startswith(target.name) and tensors[name].ndim == 4)
    names = [name for name in tensors if name.endswith("_projection.weight")] if part == "clip" else [name]
    for name in names:
        tensors[name].view(-1)[:] = value
    save_file(tensors, file, {"format": "pt"})
    return target


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("part", "model"),
    [("unet", r"the denoiser \(unet\)"), ("text_encoder", "the text encoder"), ("vae", "the decoder")],
)
def test_no_image_is_black_for_want_of_numbers(world, tmp_path, part, model, value):
    folder = damaged(world.backbone, tmp_path / "decoder", part, value)
    rows = sampling_plan.plan([{"class": "three", "lemmas": "three, trey"}], [2], METHOD, KEY)
    paths = tmp_path / "shard.tar", tmp_path / "shard.parquet"
    with pytest.raises(RuntimeError, match=f"{model}.* gives NaN or infinite numbers for .*three"):
        sampling.write_shard([work(world, rows, backbone=folder)], *paths)
    assert not any(path.exists() for path in paths)


def test_latents_that_are_none_name_the_image(world, tmp_path):
    folder = damaged(world.backbone, tmp_path / "encoder", "vae")
    images.write(tmp_path / "train.parquet", tinted(tmp_path, "train", 3))
    paths = {tmp_path / "train.parquet": tmp_path / "out"}
    with pytest.raises(RuntimeError, match=r"the encoder \(vae\) gives .* for .*train/0.png and 2 others"):
        latents.encode(folder, paths, image_size=32, mirrored=False, threads=1)
    assert not (tmp_path / "out").exists()


def test_a_checker_without_numbers_lets_nothing_pass(world, tmp_path):
    with pytest.raises(RuntimeError, match="the safety checker in .* has NaN or infinite weights"):
        backbones.SafetyChecker(damaged(world.safety, tmp_path / "safety", "safety_checker"))


def test_a_clip_without_numbers_is_named_with_what_it_read(world, tmp_path):
    folder = damaged(world.folder, tmp_path / "all", "clip")
    model = clip.Clip(f"hf_clip:{folder / 'clip'}")
    with pytest.raises(RuntimeError, match=r"the CLIP hf_clip:.* gives .* for the text 'a cat'"):
        model.texts(["a cat"])
    with pytest.raises(RuntimeError, match=r"the CLIP hf_clip:.* gives .* for the image .* in .*web.tar"):
        embedding.embed([world.shard], f"hf_clip:{folder / 'clip'}", tmp_path / "out", batch_size=64, threads=1)
    assert not (tmp_path / "out").exists()


def test_embeddings_without_length_are_none(tmp_path):
    """Of length 1 they would be, of which nothing is left when they are divided by 0."""
    table = tinted(tmp_path, "set", 3)
    with pytest.raises(RuntimeError, match=r"the embedding model gives .* for .*set/0.png and 2 others"):
        clip.embed(table, lambda pictures: np.full((len(pictures), 4), np.nan, np.float32), lambda *_: None)


def test_an_aesthetic_head_without_numbers_does_not_pass_for_unknown_scores(tmp_path):
    save_file({"weight": torch.full((1, 4), math.nan), "bias": torch.zeros(1)}, tmp_path / "head.safetensors")
    with pytest.raises(RuntimeError, match=r"the aesthetic head .*head.safetensors gives"):
        aesthetics.scorer(tmp_path / "head.safetensors")(np.ones((2, 4), np.float32))
