"""Adapters of tiny pipelines, trained for a few steps: what their tests share."""

from pathlib import Path

import pytest
import random_pipelines
import torch

from augbench import images
from augbench.core.seeds import torch_generator
from augbench.diffusion import finetuning, latents
from augbench.diffusion.trainer import Trainer
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Finetune

TEXTS = ["A photo of three, trey.", "A photo of six, half a dozen."]  # of the pictures, by turns


def write_inputs(folder: Path, backbone: Path, side: int) -> finetuning.FinetuneInputs:
    """A target of eight pictures of two classes, and four for validation, with their latents."""
    paths = {"backbone": backbone, "classes": folder / "classes.csv"}
    random_pipelines.write_classes(paths["classes"])
    for split, count in (("train", 8), ("validation", 4)):
        paths[split] = folder / f"{split}.parquet"
        paths[f"{split}_latents"] = folder / f"{split}.safetensors"
        images.write(paths[split], random_pipelines.write_pictures(folder / split, side, count))
    encode = {paths[split]: paths[f"{split}_latents"] for split in ("train", "validation")}
    latents.encode(backbone, encode, image_size=side, mirrored=False, threads=1)
    return finetuning.FinetuneInputs.model_validate(paths)


def arguments(inputs, method: Method, settings: Finetune, folder: Path, save_minutes: float = 10.0) -> dict:
    return {
        "inputs": inputs, "method": method, "settings": settings, "folder": str(folder), "rate": 1.0, "seed": 5,
        "save_minutes": save_minutes,
    }  # fmt: skip


def run(inputs, method: Method, settings: Finetune, folder: Path, save_minutes: float = 10.0) -> Path:
    finetuning.finetune(**arguments(inputs, method, settings, folder, save_minutes))
    return folder


def run_killed(inputs, method: Method, settings: Finetune, folder: Path, step: int = 4) -> int:
    """Kill a fine-tuning at its step of this number, and let it go on; returns how many steps were begun."""
    original, calls = Trainer.step, []

    def killed(self, *given):
        calls.append(given)
        if len(calls) == step:
            raise KeyboardInterrupt
        return original(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, method, settings, folder, save_minutes=0)
        run(inputs, method, settings, folder, save_minutes=0)
    return len(calls)


def disturb(network: torch.nn.Module, std: float) -> None:
    """Fill the second factors of an adapter with numbers, for of zeros the first ones have no gradient."""
    for name, weights in network.named_parameters():
        if ".lora_B." in name:
            weights.data.normal_(generator=torch_generator(len(name))).mul_(std)


def strong(candidate: dict, factor: float = 300.0) -> dict:
    """An adapter whose change can be seen in pictures."""
    return {name: value * factor if ".lora_B." in name else value for name, value in candidate.items()}
