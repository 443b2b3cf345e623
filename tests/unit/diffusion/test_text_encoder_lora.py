"""Low-rank adapters of text encoders, of Stable Diffusion and of SDXL, beside one of the denoiser."""

import adapters
import family_pipelines
import numpy as np
import pytest
import random_pipelines
import torch
import yaml
from safetensors.torch import load_file

from augbench.core.seeds import torch_generator
from augbench.diffusion import candidates, sampling, trainer
from augbench.diffusion.trainer import Batch, Trainer
from augbench.models import families
from augbench.models.backbones import AS_IT_COMES, read_pipeline, resolve
from augbench.study.methods import Method
from augbench.study.parts import PARTS
from augbench.study.sections.diffusion import Finetune, Generate

pytestmark = pytest.mark.middle  # models of the real classes, tiny, are made and loaded many times
ROWS = yaml.safe_load(open("config/methods.yaml"))["methods"]
BOTH = Method(**ROWS["lora"] | {"trained": ["lora", "text_encoder_lora"], "candidates": ["epoch-1", "epoch-2"]})
ADAPTERS = {"lora": {"rank": 4}, "text_encoder_lora": {"rank": 4}}
RATES = {"lora": 1e-3, "text_encoder_lora": 1e-3}
SETTINGS = Finetune(learning_rates=RATES, **ADAPTERS, batch_size=4, images_at_a_time=4, max_epochs=2)
SIDE = 32
ENCODERS = {"sd": ["text_encoder"], "sdxl": ["text_encoder", "text_encoder_2"]}


@pytest.fixture(scope="module", params=ENCODERS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def inputs(family, tmp_path_factory):
    folder = tmp_path_factory.mktemp(family)
    if family == "sd":
        random_pipelines.write(folder / "backbone", "tiny")
    else:
        resolve(str(family_pipelines.write(folder / "local", family)), folder / "backbone", has_checker=False)
    return adapters.write_inputs(folder, folder / "backbone", SIDE)


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    return adapters.run(inputs, BOTH, SETTINGS, tmp_path_factory.mktemp("lora") / "lr-1")


def states_of(family, pipeline, texts):
    """What the denoiser reads, with diffusers' own code: states, and what else it takes."""
    if family == "sd":
        return pipeline.encode_prompt(texts, "cpu", 1, False)[0], {}
    states, _, pooled, _ = pipeline.encode_prompt(texts, device="cpu", do_classifier_free_guidance=False)
    ids = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * len(texts))
    return states, {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}


def test_the_gradient_is_that_of_a_plain_step_with_diffusers(family, inputs):
    from diffusers import DDPMScheduler
    from peft import LoraConfig, inject_adapter_in_model

    job, pipeline = Trainer(inputs, BOTH, SETTINGS, rate=1.0, seed=5), read_pipeline(inputs.backbone)
    targets = {"unet": SETTINGS.lora.targets} | dict.fromkeys(ENCODERS[family], SETTINGS.text_encoder_lora.targets)
    ours, networks = {"unet": job.model.unet} | job.model.encoders, {}
    for name, layers in targets.items():
        adapters.disturb(ours[name], 0.05)
        networks[name] = getattr(pipeline, name)
        inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=layers), networks[name])
        networks[name].load_state_dict(ours[name].state_dict())
    batch = job._batch("train", torch.arange(4), (1, "noise"), (1,))
    losses = job._losses(Batch(*batch))
    losses.mean().backward()
    states, more = states_of(family, pipeline, adapters.TEXTS * 2)
    noisy = DDPMScheduler.from_config(pipeline.scheduler.config).add_noise(batch.latents, batch.noise, batch.timesteps)
    predicted = pipeline.unet(noisy, batch.timesteps, states, **more).sample
    loss = torch.nn.functional.mse_loss(predicted, batch.noise)
    assert torch.allclose(losses.mean(), loss, rtol=1e-5)
    loss.backward()
    for network, layers in targets.items():
        theirs, count = dict(networks[network].named_parameters()), 0
        for name, weights in ours[network].named_parameters():
            if weights.requires_grad and theirs[name].grad is None:  # of a last layer whose state nothing reads
                assert weights.grad is None, name
            elif weights.requires_grad:
                scale = theirs[name].grad.abs().max().clamp(min=1e-8)
                assert ((weights.grad - theirs[name].grad).abs().max() / scale) < 5e-5, name
                count += theirs[name].grad.abs().max() > 1e-7
        assert count >= len(layers), network


def test_two_steps_change_adapters_alone_and_the_loss_of_a_batch_falls(family, inputs):
    job = Trainer(inputs, BOTH, SETTINGS, rate=2.0, seed=5)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    losses = [job.step(np.arange(4), 1, 0) for _ in range(2)]
    after = job.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in changed if ".lora_" not in name} == set()
    read = {name for name in before if ".lora_B." in name and name.startswith("text_encoder")}
    # Of an encoder whose state before the last is read, the last layer changes the projection alone, or nothing.
    assert len(changed & read) >= 8 * len(ENCODERS[family])
    losses += [job.step(np.arange(4), 1, 0) for _ in range(10)]
    assert losses[-1] < losses[0]


def test_tokens_are_read_as_prompts_are(family, inputs):
    """At first, when the adapter changes nothing yet."""
    job, texts = Trainer(inputs, BOTH, SETTINGS, rate=1.0, seed=5), adapters.TEXTS
    with torch.no_grad():
        assert torch.allclose(job.model.read(job.model.tokenize(texts)), job.model.encodings(texts), atol=1e-6)


def test_a_killed_training_ends_with_the_same_bytes(inputs, trained, tmp_path):
    assert adapters.run_killed(inputs, BOTH, SETTINGS, tmp_path / "lr-1") == 5
    for name in ("epoch-1.safetensors", "epoch-2.safetensors", "candidates.csv"):
        assert (tmp_path / "lr-1" / name).read_bytes() == (trained / name).read_bytes()


def test_a_file_holds_the_adapters_of_denoiser_and_encoders(family, trained):
    names = set(load_file(trained / "epoch-2.safetensors"))
    assert {name.partition(".")[0] for name in names} == {"unet", *ENCODERS[family]}
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)


def drawn(sampler, rows):
    with torch.inference_mode():
        return np.stack([np.asarray(sampler.denoise([row])[0], int) for row in rows])


def test_diffusers_reads_the_file_and_draws_the_samplers_pictures(family, inputs, trained, tmp_path, monkeypatch):
    """And without the encoders' others, so that both parts are known to count."""
    # That transformers asks for a newer peft than is published; what it calls there is the same.
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "0.17.0")
    candidate = adapters.strong(candidates.load(trained / "epoch-2.safetensors"))
    settings = Generate(image_size=SIDE, steps=2, guidance=2.0)
    rows = [{"class": "three", "index": i, "number": 0, "prompt": adapters.TEXTS[0], "seed": 7 + i} for i in range(2)]
    sampler = sampling.sampler_of(sampling.GenerateInputs.model_validate(
        {"backbone": inputs.backbone, "classes": inputs.classes}
    ), BOTH, settings, AS_IT_COMES)  # fmt: skip
    halved = {name: value * (1 if name.startswith("unet.") else 0) for name, value in candidate.items()}
    before = drawn(sampler.use(halved, "unet"), rows)
    ours = drawn(sampler.use(candidate, "both"), rows)
    assert np.array_equal(drawn(sampler.use(halved, "unet"), rows), before)
    candidates.save(tmp_path / "adapter.safetensors", candidate)
    pipeline = read_pipeline(inputs.backbone)
    pipeline.load_lora_weights(tmp_path, weight_name="adapter.safetensors")
    options = {"height": SIDE, "width": SIDE, "num_inference_steps": 2, "guidance_scale": 2.0}
    theirs = []
    for row in rows:
        random = torch_generator(row["seed"])
        theirs.append(np.asarray(pipeline(row["prompt"], generator=random, **options).images[0], int))
    assert np.abs(ours - np.stack(theirs)).max() <= 1 < np.abs(ours - before).max()


def test_what_is_frozen_may_be_in_half_precision(family, inputs, monkeypatch):
    """As on a GPU, but for its kernels: losses move by what bfloat16 rounds, adapters stay in float32."""
    full = Trainer(inputs, BOTH, SETTINGS, rate=1.0, seed=5)
    monkeypatch.setattr(trainer, "mixed_precision", lambda: "bf16")
    half = Trainer(inputs, BOTH, SETTINGS, rate=1.0, seed=5)
    for _ in range(2):
        losses = [job.step(np.arange(4), 1, 0) for job in (full, half)]
        assert losses[0] == pytest.approx(losses[1], rel=0.02)
    for network in (half.model.unet, *half.model.encoders.values()):
        kinds = {(".lora_" in name, weights.dtype) for name, weights in network.named_parameters()}
        assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    moved = [value for name, value in half.model.candidate().items() if ".lora_B." in name and "layers.0" in name]
    assert moved and all(value.any() for value in moved)


def test_a_pseudo_word_is_trained_beside(inputs):
    method = Method(**ROWS["lora_pseudoword"] | {"trained": ["pseudo_word", "lora", "text_encoder_lora"]})
    job = Trainer(inputs, method, SETTINGS, rate=1.0, seed=5)
    before = job.model.pseudo_word.detach().clone()
    for _ in range(2):
        job.step(np.arange(4), 1, 0)
    assert not torch.equal(job.model.pseudo_word, before)


def test_encoders_are_trained_where_they_are_read():
    conditioning = ROWS["ft_conditioning"] | {"trained": ["conditioning", "text_encoder_lora"]}
    with pytest.raises(ValueError, match="either conditioning or text_encoder_lora: in place of the one no prompt"):
        Method(**conditioning)
    for name, can in (("XL", True), ("Diffusion 3", False), ("FLUX", False)):
        family = next(each for each in families.FAMILIES if name in each.name)
        assert family.can_train(PARTS["text_encoder_lora"]) is can
