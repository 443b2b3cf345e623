"""A trained part that is not in the program: what it takes is a class and a row of the registry."""

import pandas as pd
import pytest
import torch
from sampled import METHOD, changed
from test_finetuning import CLASSES, SETTINGS, arguments, target  # noqa: F401

from augbench.diffusion import candidates, finetuning
from augbench.diffusion.candidates import history_file
from augbench.diffusion.sampler import Sampler
from augbench.diffusion.sampling_plan import plan
from augbench.study.parts import PARTS, PROMPT, Part
from augbench.study.sections.base import Count, Section
from augbench.study.sections.diffusion import Finetune, Generate, learning_rates, settings_of


class Adapted(torch.nn.Module):
    """A linear layer with a low-rank adapter (Hu et al. 2022)."""

    def __init__(self, layer, down, up):
        super().__init__()
        self.layer, self.down, self.up = layer, down, up

    def forward(self, inputs):
        return self.layer(inputs) + inputs @ self.down @ self.up


class AdapterSettings(Section):
    rank: Count = 2


class Adapter(Part):
    name = "adapter"
    meaning = "a low-rank adapter of the embedding of the timestep"
    learning_rate = 1e-2
    learning_rate_of = "of adapters"
    gpu_hours = 380
    settings = AdapterSettings

    def attach(self, model, classes, method, settings):
        width = model.unet.time_embedding.linear_1.in_features
        down = torch.nn.Parameter(torch.full((width, settings.rank), 0.1))
        up = torch.nn.Parameter(torch.zeros(settings.rank, model.unet.time_embedding.linear_1.out_features))
        self._adapt(model.unet, down, up)
        return [down, up]

    def tensors(self, model):
        adapted = model.unet.time_embedding.linear_1
        return {f"{self.name}.down": adapted.down, f"{self.name}.up": adapted.up}

    def load(self, pipeline, candidate):
        self._adapt(pipeline.unet, candidate[f"{self.name}.down"], candidate[f"{self.name}.up"])

    def _adapt(self, unet, down, up):
        layer = unet.time_embedding.linear_1
        unet.time_embedding.linear_1 = Adapted(getattr(layer, "layer", layer), down, up)


@pytest.fixture
def adapter(monkeypatch):
    monkeypatch.setitem(PARTS, "adapter", Adapter())
    return PARTS["adapter"]


def section(parts):
    """The section as it would be if these parts were in the registry when it is defined."""
    rates = learning_rates(parts)

    class WithParts(settings_of(parts), Finetune):
        learning_rates: rates = rates()

    return WithParts


def test_its_learning_rate_and_its_own_settings_are_keys_of_the_configuration(adapter):
    settings = section(PARTS.values())(adapter={"rank": 3})
    assert settings.learning_rates.model_dump() == {
        "conditioning": 2e-3, "pseudo_word": 5e-4, "unet": 5e-7, "lora": 1e-4, "text_encoder_lora": 1e-4,
        "adapter": 1e-2,
    }  # fmt: skip
    assert settings.model_dump()["adapter"] == {"rank": 3}
    with pytest.raises(ValueError, match="rank"):
        section(PARTS.values())(adapter={"rank": 0})


def test_it_goes_with_parts_that_guide_and_with_prompts(adapter):
    alone, beside = changed(METHOD, trained=["adapter"]), changed(METHOD, trained=["conditioning", "adapter"])
    assert alone.guide is PROMPT
    assert beside.guide is PARTS["conditioning"]
    assert beside.model_dump()["trained"] == ["conditioning", "adapter"]


def test_it_is_trained_saved_and_sampled_from(world, target, tmp_path, monkeypatch, adapter):  # noqa: F811
    method = changed(METHOD, trained=["adapter"], candidates=["epoch-1", "epoch-2"])
    job = arguments(world, target, "unet_only", tmp_path / "lr-1")
    plain = SETTINGS.model_dump(exclude={"learning_rates"})
    finetuning.finetune(**job | {"method": method, "settings": section(PARTS.values())(**plain)})
    one, two = (candidates.load(tmp_path / "lr-1" / f"epoch-{epoch}.safetensors") for epoch in (1, 2))
    assert {name: tuple(value.shape) for name, value in two.items()} == {"adapter.down": (16, 2), "adapter.up": (2, 64)}
    assert not torch.equal(one["adapter.up"], two["adapter.up"])
    assert pd.read_csv(history_file(tmp_path / "lr-1"))["validation_loss"].is_monotonic_decreasing

    rows = plan(CLASSES, [1, 1], method, (1, "mine"))
    sampler = Sampler(world.backbone, method, Generate(image_size=32, steps=2))

    decode, latents = sampler._decode, []

    def recorded(denoised, rows):
        latents.append(denoised.clone())
        return decode(denoised, rows)

    monkeypatch.setattr(sampler, "_decode", recorded)
    for candidate in (one, two, one):  # an epoch moves pictures by less than a grey level
        sampler.use(candidate).draw([dict(row) for row in rows], (1, "mine"))
    first, second, again = latents
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
