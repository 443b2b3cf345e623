"""Low-rank adapters of SDXL, SD3 and FLUX, tiny: each family's objective against a plain step with diffusers'
primitives, and what holds for all candidates."""

import adapters
import family_pipelines
import numpy as np
import pytest
import torch
import yaml

from augbench.core.seeds import derive, torch_generator
from augbench.diffusion import candidates
from augbench.diffusion.pipeline_sampler import PipelineSampler
from augbench.diffusion.trainer import Batch, Trainer
from augbench.models.backbones import read_pipeline, resolve
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Finetune, Generate

pytestmark = pytest.mark.middle  # models of the real classes, tiny, are made and loaded many times
ROWS = yaml.safe_load(open("config/methods.yaml"))["methods"]
LORA = Method(**ROWS["lora"] | {"candidates": ["epoch-1", "epoch-2"]})
SETTINGS = Finetune(learning_rates={"lora": 1e-3}, lora={"rank": 4}, batch_size=4, images_at_a_time=3, max_epochs=2)
SIDE = family_pipelines.SIDE
TEXTS = adapters.TEXTS * 2


@pytest.fixture(scope="module", params=["sdxl", "sd3", "flux"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def inputs(family, tmp_path_factory):
    """A tiny pipeline of the family, and a target of eight pictures with their latents."""
    folder = tmp_path_factory.mktemp(family)
    resolve(str(family_pipelines.write(folder / "local", family)), folder / "backbone", has_checker=False)
    return adapters.write_inputs(folder, folder / "backbone", SIDE)


def trainer(inputs, settings=SETTINGS) -> Trainer:
    return Trainer(inputs, LORA, settings, rate=1.0, seed=5)


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    return adapters.run(inputs, LORA, SETTINGS, tmp_path_factory.mktemp("lora") / "lr-1")


def sdxl_loss(pipeline, clean, noise, timesteps):
    """As train_text_to_image_lora_sdxl.py of diffusers computes it."""
    from diffusers import DDPMScheduler

    states, _, pooled, _ = pipeline.encode_prompt(TEXTS, device="cpu", do_classifier_free_guidance=False)
    ids = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * len(TEXTS))  # original size, crop, target size
    noisy = DDPMScheduler.from_config(pipeline.scheduler.config).add_noise(clean, noise, timesteps)
    added = {"text_embeds": pooled, "time_ids": ids}
    return pipeline.unet(noisy, timesteps, states, added_cond_kwargs=added).sample, noise


def sd3_loss(pipeline, clean, noise, timesteps):
    """As train_dreambooth_lora_sd3.py computes it, with weight 1."""
    states, _, pooled, _ = pipeline.encode_prompt(TEXTS, None, None, device="cpu", do_classifier_free_guidance=False)
    sigmas = (timesteps / 1000).view(-1, 1, 1, 1)
    noisy = (1.0 - sigmas) * clean + sigmas * noise
    predicted = pipeline.transformer(
        hidden_states=noisy, timestep=timesteps, encoder_hidden_states=states, pooled_projections=pooled
    ).sample
    return predicted, noise - clean


def flux_loss(pipeline, clean, noise, timesteps):
    """As train_dreambooth_lora_flux.py computes it, with weight 1."""
    states, pooled, text_ids = pipeline.encode_prompt(TEXTS, None, device="cpu")
    sigmas = (timesteps / 1000).view(-1, 1, 1, 1)
    noisy = (1.0 - sigmas) * clean + sigmas * noise
    count, channels, height, width = noisy.shape
    predicted = pipeline.transformer(
        hidden_states=pipeline._pack_latents(noisy, count, channels, height, width),
        timestep=timesteps / 1000,
        guidance=torch.tensor([3.5]).expand(count),
        pooled_projections=pooled,
        encoder_hidden_states=states,
        txt_ids=text_ids,
        img_ids=pipeline._prepare_latent_image_ids(count, height // 2, width // 2, "cpu", noisy.dtype),
    ).sample
    factor = pipeline.vae_scale_factor
    return pipeline._unpack_latents(predicted, height * factor, width * factor, factor), noise - clean


PLAIN = {"sdxl": sdxl_loss, "sd3": sd3_loss, "flux": flux_loss}


def test_the_gradient_is_that_of_a_plain_step_with_diffusers(family, inputs):
    from peft import LoraConfig

    job = trainer(inputs)
    adapters.disturb(job.model.unet, 0.05)  # more would blow up low bits
    pipeline = read_pipeline(inputs.backbone)
    denoiser = getattr(pipeline, job.model.denoiser_name)
    denoiser.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=SETTINGS.lora.targets))
    denoiser.load_state_dict(job.model.unet.state_dict())
    positions = torch.arange(4)
    batch = job._batch("train", positions, (1, "noise"), (1,))
    config, stored = pipeline.vae.config, job.posteriors["train"]["parameters"][positions]
    mean, variance = stored.float().chunk(2, dim=1)
    drawn = torch.randn(mean.shape, generator=torch_generator(derive(1, "noise")))
    clean = (mean + torch.exp(0.5 * variance) * drawn - (config.shift_factor or 0)) * config.scaling_factor
    assert torch.allclose(batch.latents, clean, rtol=1e-5, atol=1e-6)
    losses = job._losses(Batch(*batch))
    losses.mean().backward()
    predicted, target = PLAIN[family](pipeline, batch.latents, batch.noise, batch.timesteps)
    loss = torch.nn.functional.mse_loss(predicted, target)
    assert torch.allclose(losses.mean(), loss, rtol=1e-5)
    loss.backward()
    theirs, trained = dict(denoiser.named_parameters()), 0
    for name, weights in job.model.unet.named_parameters():
        if weights.requires_grad:
            scale = theirs[name].grad.abs().max().clamp(min=1e-8)
            assert ((weights.grad - theirs[name].grad).abs().max() / scale) < 5e-5, name
            trained += 1
    assert trained == len(job.model.groups[LORA.trained[0]])


def test_flow_matching_draws_timesteps_as_diffusers_does(family, inputs):
    """Logit-normal places of the schedule, whose shift holds."""
    from diffusers.training_utils import compute_density_for_timestep_sampling

    from augbench.diffusion.objective import draw_timesteps, even_timesteps

    if family == "sdxl":
        pytest.skip("its objective is not flow matching")
    schedule = trainer(inputs).schedule
    shares = compute_density_for_timestep_sampling("logit_normal", 50_000, 0.0, 1.0, generator=torch_generator(1))
    theirs = schedule.timesteps[(shares * 1000).long()]
    ours = draw_timesteps(schedule, 50_000, torch_generator(2))
    quantiles = torch.linspace(0.05, 0.95, 10)
    assert torch.allclose(ours.quantile(quantiles), theirs.quantile(quantiles), atol=12)
    even = even_timesteps(schedule, 4)
    assert even[0] == 1000 and (even.diff() < 0).all()


def test_two_steps_change_the_adapter_alone_and_the_loss_of_a_batch_falls(inputs):
    job = trainer(inputs, Finetune(learning_rates={"lora": 2e-3}, batch_size=4))
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    losses = [job.step(np.arange(4), 1, 0) for _ in range(2)]
    after = job.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".lora_" in name}
    losses += [job.step(np.arange(4), 1, 0) for _ in range(10)]
    assert losses[-1] < losses[0]


def test_a_killed_training_ends_with_the_same_bytes(inputs, trained, tmp_path):
    adapters.run_killed(inputs, LORA, SETTINGS, tmp_path / "lr-1")
    for name in ("epoch-1.safetensors", "epoch-2.safetensors", "candidates.csv"):
        assert (tmp_path / "lr-1" / name).read_bytes() == (trained / name).read_bytes()


def test_diffusers_reads_the_file_and_draws_the_samplers_pictures(inputs, trained, tmp_path):
    candidate = adapters.strong(candidates.load(trained / "epoch-2.safetensors"))
    candidates.save(tmp_path / "adapter.safetensors", candidate)
    settings = Generate(image_size=SIDE, steps=2)
    rows = [{"class": "three", "index": i, "prompt": TEXTS[0], "seed": 7 + i} for i in range(2)]
    sampler = PipelineSampler(inputs.backbone, LORA, settings)
    with torch.inference_mode():
        before = np.stack([np.asarray(sampler.denoise([row])[0], int) for row in rows])
        sampler.use(candidate, "c")
        ours = np.stack([np.asarray(sampler.denoise([row])[0], int) for row in rows])
    pipeline = read_pipeline(inputs.backbone)
    pipeline.load_lora_weights(tmp_path, weight_name="adapter.safetensors")
    options = {"height": SIDE, "width": SIDE, "num_inference_steps": 2}
    drawn = [pipeline(row["prompt"], generator=torch_generator(row["seed"]), **options).images[0] for row in rows]
    theirs = np.stack([np.asarray(each, int) for each in drawn])
    assert np.array_equal(ours, theirs) and np.abs(ours - before).max() > 1
