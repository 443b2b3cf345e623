"""The sampler against diffusers' own pipeline, and its promises about seeds, batches and safety."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sampled import CLASSES, KEY, METHOD, SETTINGS, changed, work

from augbench import images
from augbench.core.gpu_memory import Portions
from augbench.core.seeds import derive, torch_generator
from augbench.diffusion import latents, sampling
from augbench.diffusion.sampler import Sampler, step_noise
from augbench.diffusion.sampling_plan import Share, batches, plan
from augbench.study import starts
from augbench.study.starts import last_steps, start_image

BOOMERANG = changed(METHOD, conditioning=None, start="image")


def make(world, folder, rows, **changes):
    shard, table = folder / "shard.tar", folder / "shard.parquet"
    sampling.write_shard([work(world, rows, **changes)], shard, table)
    return images.read(table)


@pytest.fixture(scope="module")
def rows():
    return plan(CLASSES, [4, 3], METHOD, KEY)


@pytest.fixture(scope="module")
def made(world, rows, tmp_path_factory):
    return make(world, tmp_path_factory.mktemp("made"), rows)


def test_the_plan_counts_and_names(rows):
    assert [row["class"] for row in rows] == ["three"] * 4 + ["five"] * 3
    assert rows[0]["prompt"] == "A photo of three, trey."
    assert plan(CLASSES, [2, 3], METHOD, KEY) == rows[:2] + rows[4:]


def test_the_plan_of_learned_conditionings_spreads_over_clusters():
    method = changed(METHOD, trained=["conditioning"], clusters=5)
    planned = plan(CLASSES, [3, 4], method, KEY, cluster_sizes={"three": [2, 1], "five": [1, 1, 1, 1]})
    assert [row["vector"] for row in planned] == [0, 1, 0, 5, 6, 7, 8]
    assert [row["cluster"] for row in planned] == [0, 1, 0, 0, 1, 2, 3]
    assert planned[1]["prompt"] == "A photo of three, trey. (cluster 2 of 2, learned)"


def test_images_start_from_each_training_image_in_turn_and_after_a_refusal_from_another():
    positions = [7, 2, 5, 9]

    def starts(index, attempts=range(1)):
        row = {"class": "three", "index": index}
        return [start_image(positions, KEY, row, attempt) for attempt in attempts]

    assert [starts(index)[0] for index in range(6)] == [7, 2, 5, 9, 7, 2]
    for index in range(8):
        own, *others = starts(index, range(4))
        assert sorted([own, *others]) == sorted(positions)  # each before any is tried again
        assert starts(index, range(4)) == [own, *others]
        assert own not in starts(index, range(1, 51))
    assert len({starts(index, range(2))[1] for index in range(0, 40, 4)}) == 3  # not always the same one steps in
    assert start_image([7], KEY, {"class": "three", "index": 0}, 3) == 7
    with pytest.raises(ValueError, match="the class three has no training image to start from"):
        start_image([], KEY, {"class": "three", "index": 0}, 0)


def test_batches_run_across_classes_and_do_not_depend_on_the_parts(rows):
    whole = batches(rows, 3)
    assert [[row["index"] for row in batch] for batch in whole] == [[0, 1, 2], [3, 0, 1], [2]]
    for parts in (1, 2, 3, 5):
        assert [batch for part in range(parts) for batch in batches(rows, 3, part, parts)] == whole


def test_same_pixels_as_the_diffusers_pipeline(world, made):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone, safety_checker=None)
    for row in made.itertuples():
        noise = torch.randn((1, 4, 8, 8), generator=torch_generator(int(row.seed)))
        reference = pipeline(
            row.prompt, height=32, width=32, num_inference_steps=4, guidance_scale=3.0, latents=noise
        ).images[0]
        difference = np.abs(np.asarray(reference, int) - np.asarray(images.load(row), int))
        assert difference.max() <= 1  # a rounding step: the reference runs one image at a time


def test_stable_diffusions_own_scheduler_too(world, rows, tmp_path):
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone)
    pipeline.scheduler = PNDMScheduler.from_config(pipeline.scheduler.config, skip_prk_steps=True)
    pipeline.save_pretrained(tmp_path / "pndm")
    table = make(world, tmp_path, rows[3:5], backbone=tmp_path / "pndm", max_replacements=99)
    for row in table.itertuples():
        noise = torch.randn((1, 4, 8, 8), generator=torch_generator(int(row.seed)))
        pipeline.safety_checker = None
        reference = pipeline(
            row.prompt, height=32, width=32, num_inference_steps=4, guidance_scale=3.0, latents=noise
        ).images[0]
        assert np.abs(np.asarray(reference, int) - np.asarray(images.load(row), int)).max() <= 1


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler"])
def test_noise_drawn_between_steps_belongs_to_the_image(world, rows, name):
    """Whatever was drawn before and whoever else is in the batch."""
    import diffusers

    sampler = Sampler(world.backbone, METHOD, SETTINGS)
    kind = getattr(diffusers, name)
    sampler.pipeline.scheduler = kind(beta_schedule="scaled_linear", prediction_type="v_prediction")
    given = [row | {"seed": 100 + i} for i, row in enumerate(rows[:3])]
    with torch.inference_mode():
        torch.manual_seed(1)
        together = sampler.denoise(given)
        torch.manual_seed(2)
        alone, other = sampler.denoise(given[2:])[0], sampler.denoise([given[2] | {"seed": 7}])[0]
    assert np.abs(np.asarray(alone, int) - np.asarray(together[2], int)).max() <= 1
    assert np.abs(np.asarray(alone, int) - np.asarray(other, int)).max() > 9


def test_a_scheduler_whose_noise_belongs_to_no_image_is_refused():
    class Brownian:
        config = {"noise_sampler_seed": None}

        def step(self, output, step, latents):
            """Draws for the whole batch."""

    with pytest.raises(ValueError, match="Brownian draws noise for whole batches; give"):
        step_noise(Brownian(), [1])


def test_bytes_do_not_depend_on_the_number_of_jobs(world, rows, tmp_path):
    found = {}
    for parts in (1, 3):
        found[parts] = {}
        for part in range(parts):
            table = make(world, tmp_path, rows, batch_size=3, part=part, parts=parts, who=f"{parts}")
            found[parts] |= {row.image_id: images.load_bytes(row) for row in table.itertuples()}
    assert len(found[3]) == 7
    assert found[1] == found[3]


def test_boomerang_is_the_img2img_pipeline_without_a_prompt(world, tmp_path):
    """Noised to half of the schedule and denoised with the empty prompt, without guidance."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone)
    parameters = torch.randn((2, 8, 8, 8), generator=torch.Generator().manual_seed(5))
    train = images.table({"image_id": f"real-{key}", "class": key, "path": key} for key in ("five", "three"))
    latents.write(tmp_path / "latents", train["image_id"], {"parameters": parameters})
    planned = plan(CLASSES, [1, 2], BOOMERANG, KEY)
    assert {row["prompt"] for row in planned} == {""}
    table = make(world, tmp_path, planned, method=BOOMERANG, training=(train, tmp_path / "latents"))
    assert list(table["start_image"]) == ["real-three", "real-five", "real-five"]
    with torch.no_grad():
        tokens = pipeline.tokenizer([""], padding="max_length", return_tensors="pt").input_ids
        empty = pipeline.text_encoder(tokens)[0]
        for row, start in zip(table.itertuples(), (1, 0, 0), strict=True):
            noise = torch.randn((1, 4, 8, 8), generator=torch_generator(int(row.seed)))
            pipeline.scheduler.set_timesteps(4)
            steps = pipeline.scheduler.timesteps[2:]
            begin = parameters[start : start + 1, :4] * pipeline.vae.config.scaling_factor
            current = pipeline.scheduler.add_noise(begin, noise, steps[:1])
            for step in steps:
                output = pipeline.unet(current, step, encoder_hidden_states=empty).sample
                current = pipeline.scheduler.step(output, step, current).prev_sample
            decoded = pipeline.vae.decode(current / pipeline.vae.config.scaling_factor).sample
            reference = pipeline.image_processor.postprocess(decoded)[0]
            assert np.abs(np.asarray(reference, int) - np.asarray(images.load(row), int)).max() <= 1


def test_a_killed_job_goes_on_after_its_finished_batches(world, rows, tmp_path):
    """The writer dies while it writes the second of three batches."""
    whole = make(world, tmp_path, rows, batch_size=3)
    wanted = {name: (tmp_path / name).read_bytes() for name in ("shard.tar", "shard.parquet")}
    for name in wanted:
        (tmp_path / name).unlink()
    sampling.forget(tmp_path / "shard.tar")

    drawn, original = [], Sampler.draw

    def draw(self, batch, key):
        drawn.append(len(batch))
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return original(self, batch, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "draw", draw)
        with pytest.raises(KeyboardInterrupt):
            make(world, tmp_path, rows, batch_size=3)
        assert not (tmp_path / "shard.tar").exists()
        again = make(world, tmp_path, rows, batch_size=3)
    assert drawn == [3, 3, 1, 1]
    assert {name: (tmp_path / name).read_bytes() for name in wanted} == wanted
    assert list(again["image_id"]) == list(whole["image_id"])
    # Also a job that fails after its shard, and so loses it, draws nothing again.
    (tmp_path / "shard.tar").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "draw", None)
        make(world, tmp_path, rows, batch_size=3)
    assert {name: (tmp_path / name).read_bytes() for name in wanted} == wanted
    sampling.forget(tmp_path / "shard.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard.parquet", "shard.tar"]


def test_provenance(made):
    row = made.iloc[5]
    assert row["image_id"] == "simple_prompt/base/five-00001"
    assert row["seed"] == derive(*KEY, "five", 1, row["replaced"])
    assert (row["candidate"], row["prompt"]) == ("base", "A photo of five, cinque.")
    assert made[["cluster", "start_image"]].isna().all(axis=None)


def test_refused_images_are_replaced_by_the_next_seed(world, rows, made, tmp_path):
    """A real safety checker with its threshold set between the scores of the seven images."""
    import shutil

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
    wanted = (
        "the safety checker refused 3 draws for the prompt 'A photo of three, trey.' of the class three; change the "
        "prompt, or raise `generate.max_replacements`"
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(wanted)}$"):
        make(world, tmp_path, rows, backbone=backbone, max_replacements=2)
    assert not (tmp_path / "shard.tar").exists()
    unchecked = Sampler(backbone, METHOD, SETTINGS)
    assert len(unchecked.draw([dict(rows[0])], KEY)) == 1


def refusing(refused, method, most=50, classes=None, draw=lambda row: row["start"]):
    """A sampler whose checker refuses these pictures; what it draws are the positions of the start images."""
    sampler = Sampler.__new__(Sampler)
    sampler.method, sampler.settings = method, changed(SETTINGS, max_replacements=most)
    sampler.training = latents.StartImages([f"t{i}" for i in range(10)], classes or {}, torch.zeros(10))
    sampler.denoise = lambda rows: [draw(row) for row in rows]
    sampler.checker = SimpleNamespace(unsafe=lambda pictures: [picture in refused for picture in pictures])
    return sampler


def test_a_refused_start_image_fails_no_image():
    """Of one of four start images every draw is refused: its images start from the others, and no other image does."""
    rows = [{"class": "three", "index": index, "prompt": ""} for index in range(12)]
    sampler = refusing({2}, BOOMERANG, classes={"three": [7, 2, 5, 9]})
    drawn = sampler.draw(rows, KEY)
    assert drawn == [row["start"] for row in rows]
    assert [row["start_image"] for row in rows] == [f"t{position}" for position in drawn]
    assert 2 not in drawn
    for index, row in enumerate(rows):
        assert row["replaced"] == (index % 4 == 1)
        assert index % 4 == 1 or row["start"] == [7, 2, 5, 9][index % 4]
    again = [{"class": "three", "index": index, "prompt": ""} for index in range(12)]
    assert sampler.draw(again[5:], KEY) == drawn[5:]  # whoever else is in the batch


@pytest.mark.parametrize(("most", "tried"), [(50, 4), (2, 3)])
def test_a_class_without_an_image_to_start_from_is_an_error_that_says_what_to_do(most, tried):
    rows = [{"class": "three", "index": 0, "prompt": ""}]
    wanted = (
        f"the safety checker refused {most + 1} draws from {tried} of the 4 training images of the class three; leave "
        "the class out of the target, or raise `generate.max_replacements`"
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(wanted)}$"):
        refusing({2, 5, 7, 9}, BOOMERANG, most, {"three": [7, 2, 5, 9]}).draw(rows, KEY)


@pytest.mark.parametrize(
    ("part", "templates"), [("conditioning", "simple_prompt"), ("pseudo_word", "textual_inversion")]
)
def test_whoever_learned_what_guides_is_not_told_to_change_a_prompt(part, templates):
    method = changed(METHOD, conditioning=templates, trained=["unet", part])
    sampler = refusing({0}, method, 1, draw=lambda row: 0)
    with pytest.raises(RuntimeError, match="guided by what was learned of the class three; write lower `finetune.lea"):
        sampler.draw([{"class": "three", "index": 0, "prompt": "A photo of <three>."}], KEY)


def test_what_a_gpu_has_no_memory_for_is_drawn_in_halves(world, rows, made, tmp_path, monkeypatch, capsys):
    """Three images at a time would fit, and one to decode: seven become 3, 1 and 3, and decoding goes from 3 to 1."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    denoise, decode, sizes = UNet2DConditionModel.forward, AutoencoderKL.decode, []

    def limited(call, most):
        def limited_call(self, values, *rest, **keywords):
            if len(values) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            sizes.append(len(values))
            return call(self, values, *rest, **keywords)

        return limited_call

    monkeypatch.setattr(UNet2DConditionModel, "forward", limited(denoise, 6))  # with and without the prompt
    monkeypatch.setattr(AutoencoderKL, "decode", limited(decode, 1))
    table = make(world, tmp_path, rows, max_replacements=99)
    assert sizes[:4] == [6] * 4 and sizes[4:7] == [1] * 3
    assert list(table["seed"]) == list(made["seed"])
    for one, other in zip(table.itertuples(), made.itertuples(), strict=True):
        assert np.abs(np.asarray(images.load(one), int) - np.asarray(images.load(other), int)).max() <= 1
    assert capsys.readouterr().out.splitlines() == [
        "the GPU's memory does not suffice for 7 images to denoise (`generate.batch_size`): going on with 3",
        "the GPU's memory does not suffice for 3 images to decode: going on with 1",
    ]


class Decoder(torch.nn.Module):
    """Decodes latents to pictures of one colour, (latent - 0.5) x 2, in half precision not those above 0.8; in float32
    not those above ``most``."""

    config = SimpleNamespace(scaling_factor=1.0)

    def __init__(self, most):
        super().__init__()
        self.most, self.precision = most, torch.nn.Parameter(torch.zeros(1).half())

    dtype = property(lambda self: self.precision.dtype)

    def decode(self, latents, return_dict):
        most = 0.8 if latents.dtype == torch.float16 else self.most
        values = torch.where(latents > most, float("nan"), 2 * latents - 1)
        return (values[:, :1].expand(-1, 3, -1, -1),)


def decoding(most):
    """A sampler that decodes in half precision."""
    sampler = Sampler.__new__(Sampler)
    sampler.pipeline, sampler.dtype, sampler.name = SimpleNamespace(vae=Decoder(most)), torch.float16, "lr-1_epoch-2"
    sampler.decoded_at_a_time = Portions(2, "images to decode", "")
    return sampler


def test_pictures_for_which_half_precision_is_too_small_are_decoded_in_float32():
    rows = [{"index": index, "class": "three", "prompt": "a three"} for index in range(4)]
    latents_of = torch.tensor([0.25, 0.9, 0.5, 1.0]).half().view(4, 1, 1, 1)
    pictures = decoding(most=2)._decode(latents_of, rows)
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(level,) * 3 for level in (64, 229, 128, 255)]
    wanted = r"\(vae\) gives NaN or infinite numbers for image 3 of class three, candidate lr-1_epoch-2, prompt 'a"
    with pytest.raises(RuntimeError, match=wanted):
        decoding(most=0.95)._decode(latents_of, rows)


def test_candidates_have_the_same_prompts_and_the_same_noise(world, tmp_path):
    """Common random numbers: with equal weights two candidates' images are equal, pixel by pixel."""
    method = changed(METHOD, conditioning="clip_prompts")
    rows = plan(CLASSES, [2, 2], method, KEY)
    shard, table = tmp_path / "shard.tar", tmp_path / "shard.parquet"
    sampling.write_shard([work(world, rows, name) for name in ("lr-1_best_train", "lr-1_epoch-1")], shard, table)
    one, other = (group.reset_index(drop=True) for _, group in images.read(table).groupby("candidate"))
    assert list(one["prompt"]) == list(other["prompt"])
    assert list(one["seed"]) == list(other["seed"])
    assert [images.load_bytes(row) for row in one.itertuples()] == [
        images.load_bytes(row) for row in other.itertuples()
    ]
    assert list(other["image_id"])[:2] == [f"simple_prompt/lr-1_epoch-1/three-{i:05d}" for i in range(2)]


@pytest.fixture
def training(tmp_path):
    """A training image, and its latents."""
    parameters = torch.randn((1, 8, 8, 8), generator=torch_generator(3))
    train = images.table([{"image_id": "t0", "class": "three", "path": "t0"}])
    latents.write(tmp_path / "latents", train["image_id"], {"parameters": parameters})
    return train, tmp_path / "latents"


def test_full_strength_is_noise_and_each_strength_is_another(world, rows, training):
    import numpy as np

    given = [row | {"seed": 100 + i, "start": 0} for i, row in enumerate(rows[:2])]

    def pictures(method, share):
        sampler = Sampler(world.backbone, method, changed(SETTINGS, noise_share=share), *training)
        with torch.inference_mode():
            return np.stack([np.asarray(picture, int) for picture in sampler.denoise(given)])

    real_guidance = changed(METHOD, start="image")
    noise = pictures(METHOD, 0.5)
    assert np.array_equal(pictures(real_guidance, 1.0), noise)
    half, quarter = pictures(real_guidance, 0.5), pictures(real_guidance, 0.25)
    assert np.abs(half - noise).mean() > 1 and np.abs(half - quarter).mean() > 1
    # The more of the image is left, the more alike are two variations of it.
    apart = [np.abs(each[0] - each[1]).mean() for each in (quarter, half, noise)]
    assert apart == sorted(apart)


def test_a_variation_is_guided_by_what_was_learned(world, training):
    """DA-Fusion: a training image as start, and a learned word."""
    import numpy as np

    method = changed(METHOD, start="image", conditioning="textual_inversion", trained=["pseudo_word"])
    planned = [row | {"seed": 7, "start": 0} for row in plan(CLASSES, [1, 1], method, KEY)]
    sampler = Sampler(world.backbone, method, SETTINGS, *training)
    width = sampler.pipeline.text_encoder.config.hidden_size
    words = torch.randn((2, width), generator=torch_generator(1))
    with torch.inference_mode():
        one = np.stack([np.asarray(each, int) for each in sampler.use({"pseudo_word": words}).denoise(planned)])
        other = np.stack([np.asarray(each, int) for each in sampler.use({"pseudo_word": -words}).denoise(planned)])
    assert np.abs(one - other).max() > 1


def test_a_negative_prompt_takes_the_place_of_the_empty_one(world, rows):
    import numpy as np
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone, safety_checker=None)
    sampler = Sampler(world.backbone, METHOD, changed(SETTINGS, negative_prompt="a printed five"))
    noise = torch.randn((1, 4, 8, 8), generator=torch_generator(5))
    with torch.inference_mode():
        (ours,) = sampler.denoise([rows[0] | {"seed": 5}])
    options = {"height": 32, "width": 32, "num_inference_steps": 4, "guidance_scale": 3.0, "latents": noise}
    theirs = pipeline(rows[0]["prompt"], negative_prompt="a printed five", **options).images[0]
    without = pipeline(rows[0]["prompt"], **options).images[0]
    ours, theirs, without = (np.asarray(each, int) for each in (ours, theirs, without))
    assert np.abs(ours - theirs).max() <= 1 < np.abs(theirs - without).max()


def test_boomerang_begins_where_each_scheduler_would_be():
    """PNDM, Stable Diffusion's own, visits its second timestep twice, also when it begins late."""
    from diffusers import DDIMScheduler, PNDMScheduler

    pndm, ddim = PNDMScheduler(skip_prk_steps=True), DDIMScheduler()
    for scheduler in (pndm, ddim):
        scheduler.set_timesteps(50)
    assert len(pndm.timesteps) == 51
    assert last_steps(ddim, 3).tolist() == [40, 20, 0]
    assert last_steps(pndm, 3).tolist() == [40, 20, 20, 0]
    assert last_steps(pndm, 1).tolist() == [0]


# --- a job: its share, from files --------------------------------------------------------------------------


def test_stages_cut_a_methods_images_without_gap_and_overlap():
    rows = [{"class": "a", "wanted": 10}, {"class": "b", "wanted": 3}]

    def counts(stage, at_least=None, **further):
        return Share("imagic", stage, 0, 1, ratio=0.5, times=3, **further).counts(rows, at_least)

    assert counts("base") == ([30, 9], [0, 0])
    assert counts("base", 20) == ([30, 20], [0, 0])
    assert counts("screen") == ([5, 2], [0, 0])
    assert counts("selected") == ([30, 9], [5, 2])
    assert counts("further", further=4) == ([40, 12], [30, 9])
    assert counts("further", further=2) == ([30, 9], [30, 9])


@pytest.fixture
def files(world, tmp_path):
    """The input files of a job that begins from training images."""
    from augbench.core.files import write_csv

    write_csv(tmp_path / "classes.csv", pd.DataFrame(CLASSES).assign(train=1, excluded=""))
    train = images.table({"image_id": f"real-{key}", "class": key, "path": key} for key in ("five", "three"))
    images.write(tmp_path / "train.parquet", train)
    parameters = torch.randn((2, 8, 8, 8), generator=torch.Generator().manual_seed(5))
    latents.write(tmp_path / "latents", train["image_id"], {"parameters": parameters})
    named = {name: tmp_path / name for name in ("classes.csv", "train.parquet", "latents")}
    named = {name.split(".")[0]: path for name, path in named.items()}
    return sampling.GenerateInputs.model_validate(
        {"backbone": world.backbone, "finetuned": [], "selection": [], "clusters": [], **named}
    )


def generate(files, folder, parts=1, method=BOOMERANG, **changes):
    settings = changed(SETTINGS, **{"batch_size": 2, "times": 2} | changes)
    for part in range(parts):
        share = Share("boomerang", "base", part, parts, ratio=1, times=2)
        sampling.generate(files, share, method, settings, folder / f"{part}.tar", folder / f"{part}.parquet", seed=1)
    return images.read(*(folder / f"{part}.parquet" for part in range(parts)))


def test_jobs_generate_their_shares_from_files(files, tmp_path):
    whole, cut = generate(files, tmp_path), generate(files, tmp_path, parts=2)
    assert list(whole["image_id"]) == [f"boomerang/base/{key}-0000{i}" for key in ("three", "five") for i in (0, 1)]
    assert list(whole["start_image"]) == ["real-three"] * 2 + ["real-five"] * 2
    assert list(cut["image_id"]) == list(whole["image_id"])
    assert sorted(path.suffix for path in tmp_path.glob("[01].*")) == [".parquet", ".parquet", ".tar", ".tar"]
    assert not list(tmp_path.glob(".*.batches"))


class ImageToImage(starts.Image):
    """A start that is not in the program: the last step alone, guided by a prompt."""

    name = "image_to_image"
    needs_conditioning = True

    def begin(self, rows, noise, scheduler, settings, training):
        images = training.latents[[row["start"] for row in rows]]
        return images + 0.1 * noise, last_steps(scheduler, 1)


def test_a_new_start_is_a_class_and_a_row(files, tmp_path, monkeypatch):
    monkeypatch.setitem(starts.STARTS, "image_to_image", ImageToImage())
    method = changed(METHOD, start="image_to_image")
    assert method.model_dump()["start"] == "image_to_image"
    table = generate(files, tmp_path, method=method)
    assert list(table["start_image"]) == ["real-three"] * 2 + ["real-five"] * 2
    assert set(table["prompt"]) == {"A photo of three, trey.", "A photo of five, cinque."}
    first = [images.load(row).tobytes() for row in table.itertuples()]
    assert len(set(first)) == 4
    (tmp_path / "noise").mkdir()
    noise = generate(files, tmp_path / "noise", method=METHOD)
    assert not {images.load(row).tobytes() for row in noise.itertuples()} & set(first)


def test_latents_of_other_images_are_an_error(files, tmp_path):
    """Were they taken as they are, every image would begin from one of the other class."""
    images.write(tmp_path / "train.parquet", images.read(tmp_path / "train.parquet").iloc[::-1])
    with pytest.raises(ValueError, match="latents holds latents of other images than the image table; remove it"):
        generate(files, tmp_path)
    assert not (tmp_path / "0.tar").exists()


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_each_setting_is_part_of_the_fingerprint(files):
    prints = {sampling.fingerprint_of(files, method, SETTINGS, None) for method in (METHOD, BOOMERANG)}
    for key in type(SETTINGS).model_fields:
        other = SETTINGS.model_copy(update={key: "another"})
        prints.add(sampling.fingerprint_of(files, METHOD, other, None))
    assert len(prints) == 2 + len(type(SETTINGS).model_fields)


# --- formats, and what is kept of the images by which candidates were compared ---------------------------------


@pytest.mark.parametrize(("kind", "extension"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_images_are_stored_as_the_configuration_says_and_read_where_they_lie(files, tmp_path, kind, extension):
    """Also exported, and by whoever reads a shard."""
    from augbench.dataset import export

    table = generate(files, tmp_path, format=kind, quality=90)
    members = [name for name, _ in images.member_places(tmp_path / "0.tar")]
    assert [name for name in members if name.endswith(f".{extension}")] == members[::3]
    pictures = [images.load(row) for row in table.itertuples()]
    assert [picture.size for picture in pictures] == [(32, 32)] * 4
    assert [picture.tobytes() for picture in pictures] == [
        images.decode(sample[extension]).tobytes() for _, sample in images.read_shard(tmp_path / "0.tar")
    ]
    (tmp_path / "exact").mkdir()
    exact = [images.load(row) for row in generate(files, tmp_path / "exact").itertuples()]
    error = np.abs(np.stack(pictures).astype(float) - np.stack(exact))
    assert (error.max() == 0) == (kind == "png") and error.mean() < 25  # coloured noise is hard to compress
    folder = tmp_path / "export"
    card = {"study": "s", "method": "m", "title": "M", "ratio": "1"}
    export.export("folder", table.iloc[:0], table, CLASSES, folder, card)
    copies = sorted(folder.rglob("added-*"))
    assert [path.suffix for path in copies] == [f".{extension}"] * 4
    assert copies[0].read_bytes() in [images.load_bytes(row) for row in table.itertuples()]


def test_a_lower_quality_takes_less_room(files, tmp_path):
    sizes = []
    for quality in (95, 30):
        (folder := tmp_path / str(quality)).mkdir()
        sizes.append(generate(files, folder, format="jpeg", quality=quality)["length"].sum())
    assert sizes[1] < sizes[0]


def test_the_chosen_candidates_images_go_on_and_a_picture_of_each_other(world, files, tmp_path):
    """Those by which it was compared come first, as they were, in the shard of the rest."""
    rows = plan(CLASSES, [2, 2], METHOD, KEY)
    names = ["lr-1_best_train", "lr-1_epoch-1"]
    screened = [tmp_path / "screen.tar", tmp_path / "screen.parquet"]
    sampling.write_shard([work(world, rows, name) for name in names], *screened)
    before = images.read(screened[1])
    kept = sampling.chosen_of(before, names[1])
    shard, table = tmp_path / "selected.tar", tmp_path / "selected.parquet"
    rest = plan(CLASSES, [3, 3], METHOD, KEY, already=[2, 2])
    sampling.write_shard([work(world, rest, names[1])], shard, table, copied=kept)
    after = images.read(table)
    expected = before[(before["candidate"] == names[1]) | before["image_id"].str.endswith("00000")]
    assert list(after["image_id"][:6]) == list(expected["image_id"])
    assert list(after["image_id"][6:]) == [f"simple_prompt/{names[1]}/{key}-00002" for key in ("three", "five")]
    assert set(after["path"]) == {str(shard)}
    copied = [images.load_bytes(row) for row in after.iloc[:6].itertuples()]
    assert copied == [images.load_bytes(row) for row in expected.itertuples()]
    assert after["prompt"].notna().all() and after["seed"].notna().all()
    assert len(list(images.samples(shard))) == 8
