"""Pseudo-words of SDXL, tiny: a token embedding of each class in both text encoders, against diffusers' own way of
learned words."""

import adapters
import family_pipelines
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from augbench.core.seeds import torch_generator
from augbench.diffusion.pipeline_sampler import PipelineSampler
from augbench.diffusion.trainer import Batch, Trainer
from augbench.models import families
from augbench.models.backbones import read_pipeline, resolve
from augbench.study import prompts
from augbench.study.methods import Method
from augbench.study.parts import PARTS
from augbench.study.sections.diffusion import Finetune, Generate

pytestmark = pytest.mark.middle  # models of the real classes, tiny, are made and loaded many times
ROW = yaml.safe_load(open("config/methods.yaml"))["methods"]["textual_inversion"]
METHOD = Method(**ROW | {"candidates": ["epoch-1", "epoch-2"]})
SETTINGS = Finetune(learning_rates={"pseudo_word": 5e-3}, batch_size=4, images_at_a_time=4, max_epochs=2)
SIDE = family_pipelines.SIDE
ENCODERS = {"pseudo_word": ("text_encoder", "tokenizer"), "pseudo_word_2": ("text_encoder_2", "tokenizer_2")}
KEYS = ("three", "six")
TEXTS = [f"A photo of <{key}>." for key in KEYS]


@pytest.fixture(scope="module", autouse=True)
def one_template():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompts, "templates", lambda name: ["A photo of {p}."])
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    resolve(str(family_pipelines.write(folder / "local", "sdxl")), folder / "backbone", has_checker=False)
    return adapters.write_inputs(folder, folder / "backbone", SIDE)


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    return adapters.run(inputs, METHOD, SETTINGS, tmp_path_factory.mktemp("words") / "lr-1")


def with_words(inputs, words):
    """A pipeline whose tokenizers and encoders have further tokens, as diffusers adds them. Its encoders pool at the
    end of the text: as published they look for the highest token, which a further one would be."""
    pipeline = read_pipeline(inputs.backbone)
    pipeline.set_progress_bar_config(disable=True)
    for part, (encoder, tokenizer) in ENCODERS.items():
        encoder, tokenizer = getattr(pipeline, encoder), getattr(pipeline, tokenizer)
        for key, vector in zip(KEYS, words[part], strict=True):
            pipeline.load_textual_inversion({f"<{key}>": vector.clone()}, text_encoder=encoder, tokenizer=tokenizer)
        inner = getattr(encoder, "text_model", encoder)
        assert inner.eos_token_id == 2
        inner.eos_token_id = tokenizer.eos_token_id
    return pipeline


def test_the_gradient_is_that_of_a_plain_step_with_diffusers(inputs):
    from diffusers import DDPMScheduler

    job = Trainer(inputs, METHOD, SETTINGS, rate=1.0, seed=5)
    batch = job._batch("train", torch.arange(4), (1, "noise"), (1,))
    losses = job._losses(Batch(*batch))
    losses.mean().backward()
    pipeline = with_words(inputs, {name: getattr(job.model, name).detach() for name in ENCODERS})
    states, _, pooled, _ = pipeline.encode_prompt(TEXTS * 2, device="cpu", do_classifier_free_guidance=False)
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * 4)}
    noisy = DDPMScheduler.from_config(pipeline.scheduler.config).add_noise(batch.latents, batch.noise, batch.timesteps)
    predicted = pipeline.unet(noisy, batch.timesteps, states, added_cond_kwargs=added).sample
    loss = torch.nn.functional.mse_loss(predicted, batch.noise)
    assert torch.allclose(losses.mean(), loss, rtol=1e-5)
    loss.backward()
    for part, (encoder, tokenizer) in ENCODERS.items():
        rows = getattr(pipeline, tokenizer).convert_tokens_to_ids([f"<{key}>" for key in KEYS])
        theirs = getattr(pipeline, encoder).get_input_embeddings().weight.grad[rows]
        ours = getattr(job.model, part).grad
        assert theirs.abs().amax(1).min() > 0
        assert (ours - theirs).abs().max() / theirs.abs().max() < 5e-5, part


def test_words_start_as_those_of_their_classes_in_each_encoder(inputs):
    job, pipeline = Trainer(inputs, METHOD, SETTINGS, rate=1.0, seed=5), read_pipeline(inputs.backbone)
    for part, (encoder, tokenizer) in ENCODERS.items():
        table = getattr(pipeline, encoder).get_input_embeddings().weight
        tokens = [getattr(pipeline, tokenizer)(key, add_special_tokens=False).input_ids for key in KEYS]
        wanted = torch.stack([table[row].mean(0) for row in tokens])
        assert torch.equal(getattr(job.model, part), wanted)


def test_two_steps_change_the_words_alone_and_the_loss_of_a_batch_falls(inputs):
    job = Trainer(inputs, METHOD, SETTINGS, rate=4.0, seed=5)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    losses = [job.step(np.arange(4), 1, 0) for _ in range(2)]
    after = job.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert set(ENCODERS) <= changed
    assert all(name in ENCODERS or name.endswith("token_embedding.words") for name in changed), changed
    losses += [job.step(np.arange(4), 1, 0) for _ in range(10)]
    assert losses[-1] < losses[0]


def test_a_killed_training_ends_with_the_same_bytes(inputs, trained, tmp_path):
    adapters.run_killed(inputs, METHOD, SETTINGS, tmp_path / "lr-1", step=3)
    for name in ("epoch-1.safetensors", "epoch-2.safetensors", "candidates.csv"):
        assert (tmp_path / "lr-1" / name).read_bytes() == (trained / name).read_bytes()


def test_the_file_gives_the_same_pictures_with_diffusers_and_words_of_other_classes_give_others(inputs, trained):
    words = {name: 30 * vectors for name, vectors in load_file(trained / "epoch-2.safetensors").items()}
    assert {name: vectors.shape for name, vectors in words.items()} == dict.fromkeys(ENCODERS, (2, 32))
    settings = Generate(image_size=SIDE, steps=2, guidance=4.0, negative_prompt="a printed five")
    sampler = PipelineSampler(inputs.backbone, METHOD, settings)
    rows = [{"class": key, "index": 0, "prompt": TEXTS[i], "word": i, "seed": 7} for i, key in enumerate(KEYS)]

    def drawn(candidate):
        with torch.inference_mode():
            return [np.asarray(each, int) for each in sampler.use(candidate).denoise(rows)]

    pipeline = with_words(inputs, words)
    options = {"height": SIDE, "width": SIDE, "num_inference_steps": 2, "guidance_scale": 4.0}
    options["negative_prompt"] = settings.negative_prompt
    ours = drawn(words)
    for picture, text in zip(ours, TEXTS, strict=True):
        plain = pipeline(text, generator=torch_generator(7), **options).images[0]
        assert np.abs(picture - np.asarray(plain, int)).max() <= 1
    for part in ENCODERS:  # each encoder's words are read
        others = drawn(words | {part: words[part].flip(0)})
        assert all(np.abs(one - two).max() > 1 for one, two in zip(ours, others, strict=True)), part


def test_families_whose_words_cannot_be_learned_refuse_them_in_a_sentence():
    by_class = {name: family for family in families.FAMILIES for name in family.pipelines}
    assert by_class["StableDiffusionXLPipeline"].can_train(PARTS["pseudo_word"])
    with pytest.raises(ValueError, match="mine fine-tunes pseudo_word, which is not possible with Stable Diffusion 3"):
        families.check_method(by_class["StableDiffusion3Pipeline"], METHOD, "mine")
