"""The sampler against diffusers' own pipeline, and its promises about seeds, batches and safety."""

import pytest

from augbench import images, sampling
from augbench.seeds import derive

KEY = (1, "simple_prompt", "base")
SETTINGS = {"image_size": 32, "steps": 4, "guidance": 3.0, "max_replacements": 50, "threads": 1}


def make(world, folder, rows, backbone=None, **changes):
    settings = {"batch_size": 8} | SETTINGS | changes
    shard, table = folder / "shard.tar", folder / "shard.parquet"
    sampling.generate(backbone or world.backbone, rows, shard, table, key=KEY, **settings)
    return images.read(table)


@pytest.fixture(scope="module")
def rows():
    return sampling.plan([("three", "three, trey", 4), ("five", "five, cinque", 3)], "simple_prompt", KEY)


@pytest.fixture(scope="module")
def made(world, rows, tmp_path_factory):
    return make(world, tmp_path_factory.mktemp("made"), rows)


def test_the_plan_counts_and_names(rows):
    assert [row["class"] for row in rows] == ["three"] * 4 + ["five"] * 3
    assert rows[0]["prompt"] == "A photo of three, trey."


def test_same_pixels_as_the_diffusers_pipeline(world, made):
    import numpy as np
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone, safety_checker=None)
    for row in made.itertuples():
        noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(int(row.seed)))
        reference = pipeline(
            row.prompt, height=32, width=32, num_inference_steps=4, guidance_scale=3.0, latents=noise
        ).images[0]
        difference = np.abs(np.asarray(reference, int) - np.asarray(images.load(row), int))
        assert difference.max() <= 1  # a rounding step: the reference runs one image at a time


def test_bytes_do_not_depend_on_the_other_classes_of_a_job(world, rows, made, tmp_path):
    alone = make(world, tmp_path, [row for row in rows if row["class"] == "five"])
    together = {row.image_id: images.load_bytes(row) for row in made.itertuples()}
    assert len(alone) == 3
    assert all(images.load_bytes(row) == together[row.image_id] for row in alone.itertuples())


def test_a_batch_holds_one_class_and_no_more_than_its_size():
    rows = [{"class": key, "index": i} for key, count in {"a": 5, "b": 2}.items() for i in range(count)]
    shapes = [[(row["class"], row["index"]) for row in batch] for batch in sampling._batches(rows, 3)]
    assert shapes == [[("a", 0), ("a", 1), ("a", 2)], [("a", 3), ("a", 4)], [("b", 0), ("b", 1)]]


def test_provenance(made):
    row = made.iloc[5]
    assert row["image_id"] == "simple_prompt/base/five-00001"
    assert row["seed"] == derive(*KEY, "five", 1, row["replaced"])
    assert (row["candidate"], row["prompt"]) == ("base", "A photo of five, cinque.")


def test_refused_images_are_replaced_by_the_next_seed(world, rows, made, tmp_path):
    """A real safety checker with its threshold set between the scores of the seven images."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    backbone = tmp_path / "backbone"
    shutil.copytree(world.backbone, backbone)
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    checker = StableDiffusionSafetyChecker.from_pretrained(backbone / "safety_checker")
    processor = CLIPImageProcessor.from_pretrained(backbone / "feature_extractor")
    pixels = processor([images.load(row) for row in made.itertuples()], return_tensors="pt").pixel_values
    with torch.no_grad():
        embeddings = checker.visual_projection(checker.vision_model(pixels)[1])
        scores = torch.nn.functional.normalize(embeddings) @ torch.nn.functional.normalize(checker.concept_embeds[:1]).T
    ranked = scores[:, 0].sort().values
    gap = int((ranked[3:] - ranked[2:-1]).argmax()) + 2  # the widest among the higher scores: no verdict is close
    threshold = float(ranked[gap : gap + 2].mean())
    weights = load_file(backbone / "safety_checker" / "model.safetensors")
    weights["concept_embeds_weights"][0] = threshold
    save_file(weights, backbone / "safety_checker" / "model.safetensors", {"format": "pt"})

    replaced = make(world, tmp_path, rows, backbone=backbone)
    refused = {row.image_id for row, score in zip(made.itertuples(), scores[:, 0], strict=True) if score > threshold}
    assert {row.image_id for row in replaced.itertuples() if row.replaced > 0} == refused
    for before, after in zip(made.itertuples(), replaced.itertuples(), strict=True):
        assert after.seed == derive(*KEY, after._2, int(after.image_id[-5:]), after.replaced)
        assert (images.load_bytes(before) == images.load_bytes(after)) == (after.replaced == 0)
        assert images.load(after).getextrema() != ((0, 0),) * 3


def test_a_checker_that_refuses_everything_is_an_error(world, rows, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    backbone = tmp_path / "backbone"
    shutil.copytree(world.backbone, backbone)
    weights = load_file(backbone / "safety_checker" / "model.safetensors")
    weights["concept_embeds_weights"][0] = -2.0
    save_file(weights, backbone / "safety_checker" / "model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match=r"refused 3 draws for the prompt 'A photo of three, trey\.'"):
        make(world, tmp_path, rows, backbone=backbone, max_replacements=2)
    assert not (tmp_path / "shard.tar").exists()
