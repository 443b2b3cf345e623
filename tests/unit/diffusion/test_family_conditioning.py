"""Learned conditionings of SDXL, tiny: the states of both encoders, and the pooled output."""

import adapters
import family_pipelines
import numpy as np
import pytest
import torch
import yaml

from augbench.core.seeds import torch_generator
from augbench.diffusion.pipeline_sampler import PipelineSampler
from augbench.diffusion.trainer import Batch, Trainer
from augbench.models import families
from augbench.models.backbones import read_pipeline, resolve
from augbench.study.methods import Method
from augbench.study.parts import PARTS
from augbench.study.sections.diffusion import Finetune, Generate

pytestmark = pytest.mark.middle  # models of the real classes, tiny, are made and loaded many times
ROWS = yaml.safe_load(open("config/methods.yaml"))["methods"]
METHOD = Method(**ROWS["ft_conditioning"] | {"conditioning": "simple_prompt", "candidates": ["epoch-1", "epoch-2"]})
SETTINGS = Finetune(learning_rates={"conditioning": 5e-3}, batch_size=4, images_at_a_time=4, max_epochs=2)
SIDE = family_pipelines.SIDE


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    resolve(str(family_pipelines.write(folder / "local", "sdxl")), folder / "backbone", has_checker=False)
    return adapters.write_inputs(folder, folder / "backbone", SIDE)


def test_the_first_loss_and_its_gradient_are_those_of_the_prompts_with_diffusers(inputs):
    from diffusers import DDPMScheduler

    job, pipeline = Trainer(inputs, METHOD, SETTINGS, rate=1.0, seed=5), read_pipeline(inputs.backbone)
    batch = job._batch("train", torch.arange(4), (1, "noise"), (1,))
    job.model.begin(batch.guides)
    losses = job._losses(Batch(*batch))
    losses.mean().backward()
    with torch.no_grad():
        states, _, pooled, _ = pipeline.encode_prompt(adapters.TEXTS, device="cpu", do_classifier_free_guidance=False)
    states.requires_grad_(), pooled.requires_grad_()
    added = {"text_embeds": pooled.repeat(2, 1), "time_ids": torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * 4)}
    noisy = DDPMScheduler.from_config(pipeline.scheduler.config).add_noise(batch.latents, batch.noise, batch.timesteps)
    predicted = pipeline.unet(noisy, batch.timesteps, states.repeat(2, 1, 1), added_cond_kwargs=added).sample
    loss = torch.nn.functional.mse_loss(predicted, batch.noise)
    assert torch.allclose(losses.mean(), loss, rtol=1e-5)
    loss.backward()
    gradient = job.model.conditioning.active.grad
    assert torch.allclose(gradient[:, :-1], states.grad, rtol=1e-4, atol=1e-8)
    assert torch.allclose(gradient[:, -1, :32], pooled.grad, rtol=1e-4, atol=1e-8) and pooled.grad.abs().max() > 0
    assert not gradient[:, -1, 32:].any()


def test_two_steps_change_the_conditioning_alone(inputs):
    job = Trainer(inputs, METHOD, SETTINGS, rate=1.0, seed=5)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    for _ in range(2):
        job.step(np.arange(4), 1, 0)
    after = job.model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"conditioning.table"}


def test_a_killed_training_ends_with_the_same_bytes(inputs, tmp_path):
    whole = adapters.run(inputs, METHOD, SETTINGS, tmp_path / "whole" / "lr-1")
    adapters.run_killed(inputs, METHOD, SETTINGS, tmp_path / "lr-1")
    for name in ("epoch-1.safetensors", "epoch-2.safetensors", "candidates.csv"):
        assert (tmp_path / "lr-1" / name).read_bytes() == (whole / name).read_bytes()


def test_encodings_of_prompts_as_conditionings_give_the_pictures_of_the_prompts(inputs):
    """Those of the pipeline's own call; and others, other pictures."""
    encoded = families.of_folder(inputs.backbone).encode(read_pipeline(inputs.backbone), adapters.TEXTS)
    settings = Generate(image_size=SIDE, steps=2, guidance=3.0)
    sampler = PipelineSampler(inputs.backbone, METHOD, settings)
    rows = [{"class": key, "index": 0, "prompt": "(learned)", "vector": i, "seed": 7} for i, key in enumerate("ab")]

    def drawn(conditioning):
        with torch.inference_mode():
            return [np.asarray(each, int) for each in sampler.use({"conditioning": conditioning}).denoise(rows)]

    ours, pipeline = drawn(encoded), read_pipeline(inputs.backbone)
    options = {"height": SIDE, "width": SIDE, "num_inference_steps": 2, "guidance_scale": 3.0}
    for picture, text in zip(ours, adapters.TEXTS, strict=True):
        plain = pipeline(text, generator=torch_generator(7), **options).images[0]
        assert np.abs(picture - np.asarray(plain, int)).max() <= 1
    assert np.abs(drawn(30 * encoded.flip(0))[0] - ours[0]).max() > 1


def test_what_else_is_trained_of_sdxl_is_no_denoiser():
    family = next(each for each in families.FAMILIES if "StableDiffusionXLPipeline" in each.pipelines)
    assert family.can_train(PARTS["conditioning"]) and not family.can_train(PARTS["unet"])
    with pytest.raises(ValueError, match="mine fine-tunes unet, which is not possible with Stable Diffusion XL"):
        families.check_method(family, Method(**ROWS["pseudoword_dm"]), "mine")
