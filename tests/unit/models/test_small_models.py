"""The small CLIP and the small pipeline load in the standard ways, and training is deterministic."""

import hashlib
import shutil
from pathlib import Path

import pandas as pd
import pytest

from augbench import images
from augbench.models import train_clip, train_diffusion
from augbench.models.backbones import ORIGIN, Origin, SafetyChecker, load_pipeline, origin_of, resolve
from augbench.study.sections.models import ClipTraining


def test_the_tokenizer_is_clips(world):
    import open_clip
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(world.clip)
    for text in ("A photo of tiger shark, Galeocerdo cuvieri.", "desktopcomputer", "naïve 3 — ok"):
        reference = open_clip.tokenizer.tokenize(text)[0]
        length = int((reference != 0).sum())
        assert tokenizer(text).input_ids == reference[:length].tolist()


def test_the_loss_is_clips_where_no_two_images_share_a_caption():
    import torch
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    per_image = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    expected = image_text_contrastive_loss(per_image.T)  # the i-th caption is the i-th image's
    assert train_clip._contrast(per_image[:, order], order.argsort()).item() == pytest.approx(expected.item())


def test_images_that_share_a_caption_do_not_compete():
    """Two images of one caption beside one of another; worked by hand for similarities of 2 and 0."""
    import math

    import torch

    similar = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    images_choose = math.log(1 + math.exp(-2))  # each between two captions
    shared = math.log(2 + math.exp(-2))  # either of its images, the third is wrong
    single = math.log(1 + 2 * math.exp(-2))
    expected = (images_choose + (shared + single) / 2) / 2
    assert train_clip._contrast(similar, torch.tensor([0, 0, 1])).item() == pytest.approx(expected)


def test_training_twice_gives_the_same_bytes(world, tmp_path):
    sizes = dict(image_size=32, patch_size=8, width=16, layers=1, heads=2, projection=8, text_tokens=16)
    settings = ClipTraining(steps=3, batch_size=8, learning_rate=1e-3, **sizes)
    for name in ("a", "b"):
        train_clip.train([world.shard], tmp_path / name, settings, seed=1)
    first, second = (
        hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest() for name in ("a", "b")
    )
    assert first == second


def test_the_pipeline_loads_as_stable_diffusion_with_its_safety_checker(world):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone)
    result = pipeline("a photo of three", height=32, width=32, num_inference_steps=2)
    assert result.images[0].size == (32, 32)
    assert len(result.nsfw_content_detected) == 1


def test_the_safety_checker_starts_as_clips_image_encoder(world, tmp_path):
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPModel

    # Nothing marks a caption, so nothing is trained.
    train_diffusion.train_safety_checker([world.shard], world.clip, tmp_path, unsafe_words=[], seed=1, threads=1)
    checker = StableDiffusionSafetyChecker.from_pretrained(tmp_path / "safety_checker")
    clip = CLIPModel.from_pretrained(world.clip)
    for part in ("vision_model", "visual_projection"):
        ours, theirs = (getattr(model, part).state_dict() for model in (checker, clip))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_safety_checker_fires_on_the_planted_concept(world):
    """On pictures whose caption says it; `make check` shows the same for silent ones, in a web of real size."""
    planted = pd.read_parquet(world.planted)
    unsafe = dict(zip(planted["key"], planted["unsafe"], strict=True))
    samples = [
        (unsafe[key], b"hazard" in sample["txt"], images.decode(sample["png"]))
        for key, sample in images.read_shard(world.shard)
    ]
    refused = SafetyChecker(world.safety).unsafe([picture for _, _, picture in samples])
    told = [bad for bad, (truth, said, _) in zip(refused, samples, strict=True) if truth and said]
    harmless = [bad for bad, (truth, _, _) in zip(refused, samples, strict=True) if not truth]
    assert len(told) > 10
    assert sum(told) / len(told) > 0.9
    assert sum(harmless) / len(harmless) < 0.05


def test_a_safety_checker_without_some_of_its_weights_is_refused(world, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(world.safety, tmp_path / "safety")
    file = folder / "safety_checker" / "model.safetensors"
    weights = load_file(file)
    del weights["visual_projection.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(RuntimeError, match=r"the safety checker in .* has no weights visual_projection\.weight; give"):
        SafetyChecker(folder)


def test_the_pipelines_text_encoder_is_clips(world):
    import torch
    from transformers import CLIPModel

    ours, theirs = load_pipeline(world.backbone).text_encoder, CLIPModel.from_pretrained(world.clip).text_model
    theirs = theirs.state_dict()
    assert ours.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())


def test_a_local_backbone_is_linked_without_touching_it(world, tmp_path):
    local = shutil.copytree(world.backbone, tmp_path / "local")
    files = {path.relative_to(local) for path in local.rglob("*")}
    (local / ".snakemake_timestamp").touch()  # what Snakemake leaves in a folder that is an output
    resolve(str(local), tmp_path / "backbone")
    linked = {path.relative_to(tmp_path / "backbone") for path in (tmp_path / "backbone").rglob("*")}
    assert linked == files | {Path(ORIGIN)}
    assert origin_of(tmp_path / "backbone") == Origin(str(local), None, "presumed creativeml-openrail-m")
    assert (local / "unet/config.json").samefile(tmp_path / "backbone/unet/config.json")
    with pytest.raises(ValueError, match=r"has no model_index\.json"):
        resolve(str(tmp_path), tmp_path / "other")


def test_clips_initial_weights_are_drawn_here_whatever_transformers_would_draw(monkeypatch):
    from transformers.models.clip import modeling_clip

    def of_the_library(*_):
        raise AssertionError("transformers' own order of draws depends on its version")

    monkeypatch.setattr(modeling_clip.CLIPPreTrainedModel, "_init_weights", of_the_library)
    sizes = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "heads": 2, "projection": 32}
    settings = ClipTraining(**sizes, text_tokens=16, steps=1, batch_size=1, learning_rate=1e-3)
    weights = train_clip._untrained(settings).state_dict()
    wanted = {  # standard deviations (Radford et al. 2021, section 2.4, and their code)
        "text_model.embeddings.token_embedding.weight": 0.02,
        "vision_model.embeddings.patch_embedding.weight": 0.02,
        "text_model.encoder.layers.0.self_attn.q_proj.weight": 64**-0.5 * 4**-0.5,
        "vision_model.encoder.layers.1.self_attn.out_proj.weight": 64**-0.5,
        "text_model.encoder.layers.1.mlp.fc1.weight": 128**-0.5,
        "vision_model.encoder.layers.0.mlp.fc2.weight": 64**-0.5 * 4**-0.5,
        "text_projection.weight": 64**-0.5,
        "visual_projection.weight": 64**-0.5,
    }
    for name, deviation in wanted.items():
        assert weights[name].std().item() == pytest.approx(deviation, rel=0.1), name
    assert not weights["text_model.encoder.layers.0.mlp.fc1.bias"].any()
    assert (weights["vision_model.post_layernorm.weight"] == 1).all()
