"""How fast fine-tuning and sampling are against what a user would write with diffusers, measured in one run.

    python benchmarks/diffusion.py            # a tiny pipeline; benchmarks/gpu.py takes one of Stable Diffusion's size

Prints ratios: both sides run in turn, on the same images, steps and precision, so that the machine's speed
cancels. Weights are random where that does not matter for time.
"""

import argparse
import itertools
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from random_pipelines import CLASSES, write, write_classes, write_pictures

from augbench import images
from augbench.diffusion import finetuning, latents, sampling
from augbench.diffusion.sampler import Sampler
from augbench.diffusion.sampling_plan import batches
from augbench.diffusion.trainer import mixed_precision
from augbench.study import config

ROOT = Path(__file__).parents[1]
ROUNDS = 3


def method(name: str, **changes) -> config.Method:
    import yaml

    return config.Method(**(yaml.safe_load((ROOT / "config/methods.yaml").read_text())["methods"][name] | changes))


def finetune(folder: Path, work: Path, table, name: str, settings: config.Finetune, progress=None) -> None:
    """Fine-tune a method to its last epoch on images with their latents in ``work``; one image makes the validation
    set."""
    place = work / f"finetune-{time.time_ns()}"
    place.mkdir()
    paths = {"backbone": folder, "classes": place / "classes.csv"}
    write_classes(paths["classes"])
    stored = latents.read(work / "latents.safetensors", table)
    for split, rows in (("train", table), ("validation", table.iloc[:1])):
        paths |= {split: place / f"{split}.parquet", f"{split}_latents": place / f"{split}.safetensors"}
        images.write(paths[split], rows)
        some = {kind: posteriors[: len(rows)] for kind, posteriors in stored.items()}
        latents.write(paths[f"{split}_latents"], rows["image_id"], some)
    del stored
    finetuning.finetune(
        finetuning.FinetuneInputs.model_validate(paths),
        method(name, candidates=[f"epoch-{settings.max_epochs}"]),
        settings,
        place / "lr-1",
        rate=1.0,
        seed=0,
        save_minutes=600,
        **({"progress": progress} if progress else {}),
    )


# --- fine-tuning ----------------------------------------------------------------------------------------


def plain_finetuning(
    folder: Path,
    table: pd.DataFrame,
    steps: int,
    batch: int,
    trained: list,
    gradient_checkpointing: bool = False,
) -> float:
    """Steps per second of the plain loop: decode, encode image and text, add noise, predict, step, each time."""
    from diffusers import DDPMScheduler, StableDiffusionPipeline
    from torchvision.transforms.functional import pil_to_tensor

    precision = mixed_precision()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).to(device)
    vae, encoder, unet = pipeline.vae.requires_grad_(False), pipeline.text_encoder.requires_grad_(False), pipeline.unet
    encoder.get_input_embeddings().weight.requires_grad_("pseudo_word" in trained)
    unet.requires_grad_("unet" in trained)
    if gradient_checkpointing:
        unet.train().enable_gradient_checkpointing()  # which evaluation mode leaves out
    weights = [p for module in (encoder, unet) for p in module.parameters() if p.requires_grad]
    extra = torch.zeros((1, 1, encoder.config.hidden_size), device=device, requires_grad="conditioning" in trained)
    optimizer = torch.optim.AdamW([*weights, *([extra] if extra.requires_grad else [])], lr=1e-6)
    scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
    schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    names = {row["class"]: row["lemmas"] for row in CLASSES}

    def step(rows):
        pixels = torch.stack([pil_to_tensor(images.load(row)) for row in rows]).to(device).float() / 127.5 - 1
        prompts = [f"A photo of {names[row[2]]}." for row in rows]
        tokens = pipeline.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            with torch.no_grad():
                latent = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(latent)
            times = torch.randint(0, 1000, (len(rows),), device=device)
            encoded = encoder(tokens.to(device))[0] + extra
            predicted = unet(schedule.add_noise(latent, noise, times), times, encoder_hidden_states=encoded).sample
            loss = torch.nn.functional.mse_loss(predicted.float(), noise.float())
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    rows = list(table.itertuples())
    parts = list(
        itertools.islice(itertools.cycle([rows[i : i + batch] for i in range(0, len(rows), batch)]), steps + 1)
    )
    step(parts[0])
    start = _now()
    for part in parts[1:]:
        step(part)
    return steps / (_now() - start)


def our_finetuning(folder: Path, work: Path, table, name: str, epochs: int, batch: int) -> float:
    """Steps per second of the fine-tuner; one image makes the validation set."""
    if not (work / "latents.safetensors").exists():
        side = images.load(next(table.itertuples())).size[0]
        images.write(work / "images.parquet", table)
        paths = {work / "images.parquet": work / "latents.safetensors"}
        latents.encode(folder, paths, image_size=side, mirrored=False, threads=torch.get_num_threads())
    ticks = []
    settings = config.Finetune(
        batch_size=batch, images_at_a_time=batch, max_epochs=epochs + 2, patience=99, validation_images=1,
        gradient_checkpointing=False, threads=torch.get_num_threads(),
    )  # fmt: skip
    finetune(folder, work, table, name, settings, progress=lambda *_: ticks.append(_now()))
    # Without the first epoch, which warms up, and the last, which writes its candidate.
    return epochs * -(-len(table) // batch) / (ticks[epochs] - ticks[0])


def denoiser_alone(folder: Path, side: int, steps: int, batch: int, trained: list) -> float:
    """Steps per second of the U-Net forward and backward and nothing else: what no fine-tuner can be faster than."""
    from diffusers import UNet2DConditionModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(mixed_precision(), torch.float32)
    whole = "unet" in trained
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet").to(device, torch.float32 if whole else dtype)
    unet.requires_grad_(whole)
    if device == "cuda":
        unet.to(memory_format=torch.channels_last)
    count = 77 if unet.config.cross_attention_dim == 768 else 20
    guides = torch.randn(batch, count, unet.config.cross_attention_dim, device=device, requires_grad=True)
    latent = torch.randn(batch, 4, unet.config.sample_size, unet.config.sample_size, device=device, dtype=unet.dtype)
    times = torch.randint(0, 1000, (batch,), device=device)

    def step():
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            unet(latent, times, guides.to(unet.dtype)).sample.float().square().mean().backward()

    step()
    start = _now()
    for _ in range(steps):
        step()
    return steps / (_now() - start)


# --- sampling -------------------------------------------------------------------------------------------


def plain_sampling(folder: Path, prompts: list[str], side: int, steps: int) -> float:
    """Images per second of ``StableDiffusionPipeline`` called for each prompt with its defaults."""
    from diffusers import StableDiffusionPipeline

    gpu = torch.cuda.is_available()
    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float16 if gpu else torch.float32)
    pipeline.to("cuda" if gpu else "cpu").set_progress_bar_config(disable=True)
    pipeline(prompts[0], height=side, width=side, num_inference_steps=1)
    start = _now()
    for prompt in prompts:
        pipeline(prompt, height=side, width=side, num_inference_steps=steps).images[0].tobytes()
    return len(prompts) / (_now() - start)


def our_sampling(
    folder: Path, work: Path, prompts: list[str], side: int, steps: int, batch: int
) -> tuple[float, float]:
    """Images per second of the sampler, written to a shard, and the share of its time outside the U-Net."""
    settings = config.Generate(image_size=side, steps=steps, guidance=7.5, threads=torch.get_num_threads())
    sampler = Sampler(folder, method("simple_prompt"), settings, safety=folder)
    inside, unet = [], sampler.pipeline.unet.forward

    def timed(*arguments, **keywords):
        start = _now()
        output = unet(*arguments, **keywords)
        inside.append(_now() - start)
        return output

    sampler.pipeline.unet.forward = timed
    rows = [{"class": "c", "number": 0, "index": i, "prompt": prompt} for i, prompt in enumerate(prompts)]
    sampler.draw([dict(row) for row in rows[:batch]], (0, "warm", "up"))
    inside.clear()
    start = _now()
    part = sampling.Work(lambda: sampler, batches(rows, batch), (0, "bench"), "base", str(time.time_ns()))
    sampling.write_shard([part], work / "shard.tar", work / "shard.parquet")
    total = _now() - start
    return len(prompts) / total, 1 - sum(inside) / total


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _report(what: str, ours: list[float], plain: list[float], unit: str) -> None:
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    extremes = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(
        f"  {what}: {statistics.median(ratios):.2f}x ({extremes}); "
        f"{statistics.median(ours):.3g} against {statistics.median(plain):.3g} {unit}",
        flush=True,
    )


def measure(size: str, side: int, batch: int, count: int, drawn: int, steps: int, epochs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = work / "pipeline"
        write(folder, size)
        table = write_pictures(work / "pictures", side, count)
        print(f"{size}, {side} pixels, batches of {batch}", flush=True)
        for name in ("ft_conditioning", "imagic", "textual_inversion"):
            trained = [part.name for part in method(name).trained]
            ours, plain, limit = [], [], []
            for _ in range(ROUNDS):
                limit.append(denoiser_alone(folder, side, 12, batch, trained))
                ours.append(our_finetuning(folder, work, table, name, epochs, batch))
                total = epochs * -(-len(table) // batch)
                plain.append(plain_finetuning(folder, table, total, batch, trained))
            _report(f"fine-tuning, {name}", ours, plain, "steps/s")
            most = statistics.median(b / a for a, b in zip(plain, limit, strict=True))
            print(f"    a U-Net and nothing else would be {most:.2f}x", flush=True)
        prompts = [f"A photo of {word}." for word in itertools.islice(itertools.cycle(["three, trey", "six"]), drawn)]
        ours, plain, outside = [], [], []
        for _ in range(ROUNDS):
            speed, share = our_sampling(folder, work, prompts, side, steps, batch)
            ours.append(speed)
            outside.append(share)
            plain.append(plain_sampling(folder, prompts, side, steps))
        _report(f"sampling, {steps} steps", ours, plain, "images/s")
        print(f"  sampler time outside the U-Net: {statistics.median(outside):.1%}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    torch.set_num_threads(parser.parse_args().threads)
    gpu = torch.cuda.is_available()
    print(f"{torch.cuda.get_device_name() if gpu else platform.machine()}, torch {torch.__version__}")
    measure("tiny", side=32, batch=16, count=96, drawn=32, steps=25, epochs=3)
