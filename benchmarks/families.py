"""Sampling and LoRA beside the plain way, on tiny random pipelines of the real classes, in one run.

    python benchmarks/families.py [FAMILY ...]

Prints for each family the time of ``pipeline(prompt)`` image by image over the sampler's, and over that of the pipeline
called with all prompts, which is what a batch can give; and for Stable Diffusion a step of diffusers'
``train_text_to_image_lora.py`` (encode pictures and prompts, add noise, predict, AdamW) over the trainer's: of an
adapter of the denoiser, of the text encoder as well, and of each class with its own, where a new class comes in each
step. Medians of rounds that take turns: seconds on a GPU, where there is one, else the processor's on one thread.
"""

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

import family_pipelines  # noqa: E402
import random_pipelines  # noqa: E402

from augbench import images  # noqa: E402
from augbench.core.seeds import torch_generator  # noqa: E402
from augbench.diffusion import finetuning, latents  # noqa: E402
from augbench.diffusion.pipeline_sampler import EXACT, PipelineSampler  # noqa: E402
from augbench.diffusion.trainer import Trainer  # noqa: E402
from augbench.models.backbones import load_pipeline  # noqa: E402
from augbench.study.methods import Method  # noqa: E402
from augbench.study.sections.diffusion import Finetune, Generate  # noqa: E402

ROUNDS, IMAGES, BATCH, SIDE = 5, 8, 8, family_pipelines.SIDE
ROWS = yaml.safe_load((ROOT / "config" / "methods.yaml").read_text())["methods"]
STEPS = 4  # of a round
LORA = {"lora": "denoiser", "datadream_target": "and encoder", "datadream": "and class by class"}


def medians(*ways) -> list[float]:
    """Seconds of each way, medians of rounds by turns."""
    times: dict = {way: [] for way in ways}
    # Other programs of the machine do not change what the processor takes.
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    for turn in range(ROUNDS + 1):
        for way in times:
            start = clock()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:  # the first warms up
                times[way].append(clock() - start)
    return [statistics.median(each) for each in times.values()]


def sampling(family: str, folder: Path) -> list[float]:
    family_pipelines.write(folder, family)
    rows = [{"class": "a", "index": i, "prompt": f"A photo of {i}.", "seed": i} for i in range(IMAGES)]
    settings = Generate(image_size=SIDE, steps=4, batch_size=BATCH)
    sampler = PipelineSampler(folder, Method(**ROWS["simple_prompt"]), settings)
    pipeline = load_pipeline(folder)
    pipeline.set_progress_bar_config(disable=True)
    known = pipeline.__call__.__code__.co_varnames
    options = {"height": SIDE, "width": SIDE, "num_inference_steps": 4}
    options |= {name: value for name, value in EXACT.items() if name in sampler.exact or name in known}

    def plain():
        for row in rows:
            pipeline(row["prompt"], generator=torch_generator(row["seed"]), **options)

    def together():
        generators = [torch_generator(row["seed"]) for row in rows]
        pipeline([row["prompt"] for row in rows], generator=generators, **options)

    def ours():
        with torch.inference_mode():
            sampler.denoise(rows)

    return medians(plain, ours, together)


def training(row: str, folder: Path) -> list[float]:
    """Of Stable Diffusion, tiny: a step of a row of the method table."""
    method = Method(**ROWS[row])
    settings = Finetune(batch_size=BATCH, images_at_a_time=BATCH, gradient_checkpointing=False)
    trainer = Trainer(target(folder), method, settings, rate=1.0, seed=1)
    batches = itertools.cycle([np.arange(0, 2 * BATCH, 2), np.arange(1, 2 * BATCH, 2)])  # of one class each
    plain = plain_step(folder / "backbone", settings, any(part.trains_encoder for part in method.trained))

    def ours():
        for _ in range(STEPS):
            trainer.step(next(batches), 1, 0)

    return [seconds / STEPS for seconds in medians(lambda: [plain() for _ in range(STEPS)], ours)]


def target(folder: Path) -> finetuning.FinetuneInputs:
    random_pipelines.write(folder / "backbone", "tiny")
    random_pipelines.write_classes(folder / "classes.csv")
    paths = {"backbone": folder / "backbone", "classes": folder / "classes.csv"}
    for split in ("train", "validation"):
        paths |= {split: folder / f"{split}.parquet", f"{split}_latents": folder / f"{split}.safetensors"}
        images.write(paths[split], random_pipelines.write_pictures(folder / split, SIDE, 2 * BATCH))
        latents.encode(
            paths["backbone"], {paths[split]: paths[f"{split}_latents"]}, image_size=SIDE, mirrored=False, threads=1
        )
    return finetuning.FinetuneInputs.model_validate(paths)


def plain_step(backbone: Path, settings: Any, trains_encoder: bool):
    """A step as the script of diffusers makes it."""
    from diffusers import DDPMScheduler
    from peft import LoraConfig, inject_adapter_in_model

    pipeline = load_pipeline(backbone)
    device = pipeline.device
    unet, vae, encoder = (part.requires_grad_(False) for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder))
    adapted = {unet: settings.lora} | ({encoder: settings.text_encoder_lora} if trains_encoder else {})
    for network, section in adapted.items():
        config = LoraConfig(r=16, lora_alpha=16, init_lora_weights="gaussian", target_modules=section.targets)
        inject_adapter_in_model(config, network)
    trained = [weights for network in adapted for weights in network.parameters() if weights.requires_grad]
    for weights in trained:
        weights.data = weights.data.float()
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    pixels = torch.randn(BATCH, 3, SIDE, SIDE, device=device, dtype=vae.dtype)
    tokens = pipeline.tokenizer(
        ["a photo of three, trey."] * BATCH, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids.to(device)

    def plain():
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            clean = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(clean)
            timesteps = torch.randint(0, 1000, (BATCH,), device=device)
            states = encoder(tokens)[0]
            predicted = unet(schedule.add_noise(clean, noise, timesteps), timesteps, states).sample
        torch.nn.functional.mse_loss(predicted.float(), noise.float()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return plain


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, one thread"
    print(f"{card}: {IMAGES} images of {SIDE} pixels, medians of {ROUNDS} rounds\n")
    print(f"{'':<34}{'plain s':>10}{'augbench s':>12}{'ratio':>8}{'of a plain batch':>19}")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or family_pipelines.PIPELINES:
            line(f"sampling, {name}", *sampling(name, Path(folder) / name))
        for row, title in LORA.items():
            line(f"LoRA step, SD, {title}", *training(row, Path(folder) / row))


def line(what: str, plain: float, ours: float, together: float | None = None) -> None:
    limit = f"{plain / together:>19.2f}" if together else ""
    print(f"{what:<34}{plain:>10.3f}{ours:>12.3f}{plain / ours:>8.2f}{limit}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
