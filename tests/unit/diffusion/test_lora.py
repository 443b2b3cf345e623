"""Low-rank adapters: what changes, what is minimised, what a kill costs, and that diffusers reads the files."""

import adapters
import numpy as np
import pytest
import random_pipelines
import torch
import yaml
from safetensors.torch import load_file

from augbench.core.seeds import torch_generator
from augbench.diffusion import candidates
from augbench.diffusion.sampler import Sampler
from augbench.diffusion.trainer import Batch, Trainer
from augbench.models.backbones import read_pipeline
from augbench.study import prompts
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Finetune, Generate

pytestmark = pytest.mark.middle  # models of the real classes, tiny, are made and loaded many times
ROWS = yaml.safe_load(open("config/methods.yaml"))["methods"]
LORA = Method(**ROWS["lora"] | {"candidates": ["epoch-1", "epoch-2"]})
SETTINGS = Finetune(learning_rates={"lora": 1e-3}, lora={"rank": 4}, batch_size=4, images_at_a_time=3, max_epochs=2)
GENERATE = Generate(image_size=32, steps=2, guidance=2.0)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def inputs(request, tmp_path_factory):
    """A tiny Stable Diffusion, of the objective of 1.x or of 2.x, and a target of eight pictures with their latents."""
    folder = tmp_path_factory.mktemp(request.param)
    random_pipelines.write(folder / "backbone", "tiny")
    if request.param != "epsilon":
        pipeline = read_pipeline(folder / "backbone")
        config = dict(pipeline.scheduler.config) | {"prediction_type": request.param}
        pipeline.scheduler = type(pipeline.scheduler).from_config(config)
        pipeline.scheduler.save_pretrained(folder / "backbone" / "scheduler")
    return adapters.write_inputs(folder, folder / "backbone", 32)


def trainer(inputs, settings=SETTINGS, method=LORA) -> Trainer:
    return Trainer(inputs, method, settings, rate=1.0, seed=5)


def run(inputs, folder, settings=SETTINGS, method=LORA):
    return adapters.run(inputs, method, settings, folder)


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    return run(inputs, tmp_path_factory.mktemp("lora") / "lr-1")


def test_two_steps_change_the_adapter_alone(inputs):
    job = trainer(inputs)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    for step in range(2):
        job.step(np.arange(4), 1, step)
    after = job.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".lora_" in name}
    plain = read_pipeline(inputs.backbone).unet.state_dict()
    for name, value in plain.items():
        adapted = name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")
        assert torch.equal(after[f"unet.{name if f'unet.{name}' in after else adapted}"], value)


def test_the_gradient_is_that_of_a_plain_step_with_diffusers(inputs):
    """Its primitives: the scheduler's noise, the encoder's states, a mean squared error, an adapter of peft's."""
    from diffusers import DDPMScheduler
    from peft import LoraConfig

    job = trainer(inputs, SETTINGS.model_copy(update={"images_at_a_time": 4}))
    adapters.disturb(job.model.unet, 1.0)
    pipeline = read_pipeline(inputs.backbone)
    pipeline.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
    pipeline.unet.load_state_dict(job.model.unet.state_dict())
    texts = adapters.TEXTS * 2
    positions = torch.arange(4)
    batch = job._batch("train", positions, (1, "noise"), (1,))
    job.optimizer.clear()
    losses = job._losses(Batch(*batch))
    losses.mean().backward()
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    tokens = pipeline.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        states = pipeline.text_encoder(tokens)[0]
    noisy = schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
    target = batch.noise
    if schedule.config.prediction_type == "v_prediction":
        target = schedule.get_velocity(batch.latents, batch.noise, batch.timesteps)
    predicted = pipeline.unet(noisy, batch.timesteps, states).sample
    torch.nn.functional.mse_loss(predicted, target).backward()
    theirs = dict(pipeline.unet.named_parameters())
    for name, weights in job.model.unet.named_parameters():
        if weights.requires_grad:
            assert torch.allclose(weights.grad, theirs[name].grad, rtol=1e-5, atol=1e-8), name


def test_the_loss_on_one_batch_falls(inputs):
    job = trainer(inputs, Finetune(learning_rates={"lora": 5e-3}, batch_size=4))
    losses = [job.step(np.arange(4), 1, 0) for _ in range(12)]
    assert losses[-1] < losses[0]


def test_a_killed_training_ends_with_the_same_bytes(inputs, trained, tmp_path):
    assert adapters.run_killed(inputs, LORA, SETTINGS, tmp_path / "lr-1") == 5  # two epochs of two steps, one twice
    for name in ("epoch-1.safetensors", "epoch-2.safetensors", "candidates.csv"):
        assert (tmp_path / "lr-1" / name).read_bytes() == (trained / name).read_bytes()


def rows(count=2):
    return [
        {"class": "three", "index": i, "number": 0, "prompt": "A photo of three, trey.", "seed": 7 + i}
        for i in range(count)
    ]


def pictures(sampler, candidate=None):
    with torch.inference_mode():
        used = sampler.use(candidate, "c") if candidate else sampler
        return np.stack([np.asarray(each, int) for each in used.denoise(rows())])


def strong(folder, factor=300.0):
    return adapters.strong(candidates.load(folder / "epoch-2.safetensors"), factor)


def test_diffusers_reads_the_file_and_draws_the_samplers_pictures(inputs, trained, tmp_path):
    from diffusers import StableDiffusionPipeline

    candidate = strong(trained)
    candidates.save(tmp_path / "adapter.safetensors", candidate)
    ours = pictures(Sampler(inputs.backbone, LORA, GENERATE), candidate)
    pipeline = StableDiffusionPipeline.from_pretrained(inputs.backbone, safety_checker=None)

    def theirs():
        options = {"height": 32, "width": 32, "num_inference_steps": 2, "guidance_scale": 2.0}
        drawn = [
            pipeline(row["prompt"], latents=torch.randn(1, 4, 8, 8, generator=torch_generator(row["seed"])), **options)
            for row in rows()
        ]
        return np.stack([np.asarray(each.images[0], int) for each in drawn])

    without = theirs()
    pipeline.load_lora_weights(tmp_path, weight_name="adapter.safetensors")
    assert np.abs(ours - theirs()).max() <= 1 < np.abs(ours - without).max()


def test_candidates_replace_each_other(inputs, trained):
    sampler = Sampler(inputs.backbone, LORA, GENERATE)
    one, two = strong(trained), strong(trained, -300.0)
    first, second, again = (pictures(sampler, candidate) for candidate in (one, two, one))
    assert np.array_equal(first, again) and not np.array_equal(first, second)


def test_alpha_scales_the_change_in_training_and_in_the_file(inputs):
    """Of an adapter with twice the scale half the second factor has the same effect, and so has its file."""
    jobs = [trainer(inputs, Finetune(lora={"rank": 4, "alpha": alpha}, batch_size=4)) for alpha in (4, 8)]
    for job, factor in zip(jobs, (1.0, 0.5), strict=True):
        for name, weights in job.model.unet.named_parameters():
            if ".lora_B." in name:
                weights.data.normal_(generator=torch_generator(len(name))).mul_(factor)
    batch = jobs[0]._batch("train", torch.arange(4), (1, "noise"), (1,))
    one, two = (job._losses(batch) for job in jobs)
    assert torch.allclose(one, two, rtol=1e-6)
    files = [job.model.candidate() for job in jobs]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_a_file_holds_the_adapter_alone_or_with_a_pseudo_word(inputs, trained, tmp_path):
    names = set(load_file(trained / "epoch-2.safetensors"))
    assert all(name.startswith("unet.") and name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)
    assert (trained / "epoch-2.safetensors").stat().st_size < 1e6
    method = Method(**ROWS["lora_pseudoword"] | {"candidates": ["epoch-1"]})
    both = run(inputs, tmp_path / "lr-1", method=method)
    assert set(load_file(both / "epoch-1.safetensors")) == names | {"pseudo_word"}
    sampler = Sampler(inputs.backbone, method, GENERATE).use(candidates.load(both / "epoch-1.safetensors"))
    planned = [row | {"prompt": f"a photo of {prompts.pseudo_word('three')}", "word": 0} for row in rows()]
    with torch.inference_mode():
        assert len(sampler.denoise(planned)) == 2


def test_the_denoiser_and_its_adapter_are_not_trained_together():
    with pytest.raises(ValueError, match="trained takes either unet or lora: both change the denoiser"):
        Method(**ROWS["lora"] | {"trained": ["unet", "lora"]})
