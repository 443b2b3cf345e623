"""Today's families, tiny: the GPU draws what the CPU does, within bounds; adapters and words are trained to the same
bytes twice, and after a kill as well."""

from pathlib import Path

import adapters
import family_pipelines
import numpy as np
import pandas as pd
import pytest
import random_pipelines
import torch
import yaml
from sampled import METHOD

from augbench.diffusion.candidates import history_file
from augbench.diffusion.pipeline_sampler import PipelineSampler
from augbench.models.backbones import resolve
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Finetune, Generate

pytestmark = pytest.mark.slow

BOUND = 0.02  # as of the tiny Stable Diffusion, see test_tiny_stages
ROWS = yaml.safe_load((Path(__file__).parents[2] / "config" / "methods.yaml").read_text())["methods"]
SAMPLING = Generate(image_size=family_pipelines.SIDE, steps=4, batch_size=4)
ADAPTERS = {"lora": {"rank": 4}, "text_encoder_lora": {"rank": 4}}
TRAINING = Finetune(**ADAPTERS, batch_size=4, images_at_a_time=2, max_epochs=2)
BOTH = ["lora", "text_encoder_lora"]
TRAINED = [("sd", ["lora"]), ("sd", BOTH), ("sdxl", ["lora"]), ("sdxl", BOTH), ("sd3", ["lora"]), ("flux", ["lora"])]
WORDS = ["pseudo_word"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A function: a family -> a tiny pipeline of it, as a study's job finds it."""
    folder = tmp_path_factory.mktemp("families")

    def backbone(family):
        if not (folder / family).exists():
            if family == "sd":
                random_pipelines.write(folder / family, "tiny")
            else:
                resolve(str(family_pipelines.write(folder / f"{family}-local", family)), folder / family, False)
        return folder / family

    return backbone


@pytest.fixture
def on_the_cpu(monkeypatch):
    """A function: call something as if there were no GPU."""

    def on_the_cpu(compute, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            return compute(*arguments)

    return on_the_cpu


def drawn(backbone) -> np.ndarray:
    """Pictures of four seeds in one batch."""
    prompts = adapters.TEXTS * 2
    rows = [{"class": "c", "index": i, "number": 0, "prompt": prompts[i], "seed": i} for i in range(4)]
    with torch.inference_mode():
        pictures = PipelineSampler(backbone, METHOD, SAMPLING).denoise(rows)
    return np.stack([np.asarray(picture, np.float32) for picture in pictures])


@pytest.mark.parametrize("family", family_pipelines.PIPELINES)
def test_a_family_draws_what_the_cpu_does_and_the_same_twice(family, backbone, on_the_cpu):
    first, again, expected = drawn(backbone(family)), drawn(backbone(family)), on_the_cpu(drawn, backbone(family))
    off = np.abs(first - expected).mean() / expected.mean()
    print(f"{family}: {off:.2%} off the CPU")
    assert off < BOUND
    assert np.array_equal(first, again)


def losses(folder) -> np.ndarray:
    return pd.read_csv(history_file(folder))[["train_loss", "validation_loss"]].to_numpy()


@pytest.mark.parametrize(("family", "parts"), [*TRAINED, ("sdxl", WORDS)])
def test_what_is_trained_is_the_same_twice_and_after_a_kill(family, parts, backbone, on_the_cpu, tmp_path, digest):
    if parts != WORDS:
        pytest.importorskip("peft")
    row = ROWS["textual_inversion" if parts == WORDS else "lora"] | {"trained": parts, "candidates": ["epoch-2"]}
    row = Method(**row)
    inputs = on_the_cpu(adapters.write_inputs, tmp_path, backbone(family), family_pipelines.SIDE)
    expected = losses(on_the_cpu(adapters.run, inputs, row, TRAINING, tmp_path / "cpu" / "lr-1"))
    found = {}
    for name, run in (("once", adapters.run), ("twice", adapters.run), ("killed", adapters.run_killed)):
        run(inputs, row, TRAINING, tmp_path / name / "lr-1")
        found[name] = digest(tmp_path / name)
    off = np.abs(losses(tmp_path / "once" / "lr-1") - expected).mean() / expected.mean()
    print(f"{family}, {' and '.join(parts)}: {off:.2%} off the CPU")
    assert off < BOUND
    assert found["once"] == found["twice"] == found["killed"]
