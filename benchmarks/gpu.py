"""How fast each stage is on a GPU, with Stable Diffusion v1.4's exact architecture, and how much memory it takes.

    python benchmarks/gpu.py                                       # five minutes on an H100
    python benchmarks/gpu.py --only sampling,latents --seconds 120
    python benchmarks/gpu.py --tiny                                # a rehearsal, also without a GPU

Ratios are of two sides that run in turn on the same images and in the same precision. Each section prints as it ends;
an error ends a section alone, and one that would not end within ``--seconds`` is left out. ``--json`` names a file that
receives the same figures. Weights are random, which changes no time. Needs what `make test-gpu` does, and no network.
"""

import argparse
import contextlib
import functools
import gc
import itertools
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from augbench.jobs import gpus

gpus.prepare_torch()

import gpu_stages
import numpy as np
import random_pipelines
import torch
from PIL import Image

from augbench import images
from augbench.classifier import crops, training
from augbench.classifier.networks import Network
from augbench.core import determinism
from augbench.core.files import write_json
from augbench.diffusion import latents, sampling
from augbench.diffusion.sampler import Sampler
from augbench.diffusion.sampling_plan import batches
from augbench.diffusion.trainer import mixed_precision
from augbench.study.sections.classifier import Classifier
from augbench.study.sections.diffusion import Generate

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
EPOCHS = 2  # of a fine-tuning that are measured, between one that warms up and one that writes the candidate
Figures = dict[str, float | str]


@dataclass(frozen=True)
class Size:
    """What is measured: images of ``side`` pixels in so large batches, and a classifier on ``crop`` pixels."""

    side: int = 512
    trained: int = 64  # pictures
    batch: int = 8  # that a fine-tuning takes at a time
    drawn: int = 16  # images that are drawn at a time
    steps: int = 50
    model: str = "resnet50"
    crop: int = 224
    classified: int = 256  # images of a classifier's batch
    epoch: int = 1024  # images of its epochs


TINY = Size(32, 40, 4, 4, 4, "resnet18", 32, 8, 32)


@dataclass(frozen=True)
class Bench:
    size: Size
    material: gpu_stages.Material
    work: Path  # a folder

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.work))


# --- time and memory ----------------------------------------------------------------------------------


def now() -> float:
    if HAS_GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def clean() -> None:
    """Forget what was measured before: its memory, and settings of torch that plain code does not have."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    gc.collect()
    if HAS_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> float:
    """GiB of the GPU that torch took at most since :func:`clean`."""
    return torch.cuda.max_memory_reserved() / gpu_stages.GIB if HAS_GPU else 0.0


class Inside:
    """Seconds within a model's forward pass, by the GPU's own clock: to wait for each pass would slow it down."""

    def __init__(self, model):
        self.passes, forward = [], model.forward

        @functools.wraps(forward)
        def timed(*arguments, **keywords):
            begin = self._mark()
            output = forward(*arguments, **keywords)
            self.passes.append((begin, self._mark()))
            return output

        model.forward = timed

    def _mark(self):
        if not HAS_GPU:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> float:
        now()
        return sum(begin.elapsed_time(end) / 1000 if HAS_GPU else end - begin for begin, end in self.passes)


# --- fine-tuning --------------------------------------------------------------------------------------


def our_finetuning(bench: Bench, name: str) -> float:
    """Steps per second of the fine-tuner, validation on one image included."""
    ticks, size = [], bench.size
    settings = {"batch_size": size.batch, "images_at_a_time": size.batch, "validation_images": 1}
    settings |= {"horizontal_flip": False, "gradient_checkpointing": False, "threads": torch.get_num_threads()}
    gpu_stages.finetune(
        bench.material,
        bench.new_folder(),
        name,
        epochs=EPOCHS + 2,
        progress=lambda *_: ticks.append(now()),
        **settings,
    )
    return EPOCHS * (size.trained // size.batch) / (ticks[EPOCHS] - ticks[0])


def plain_finetuning(bench: Bench, name: str, steps: int, reads_files: bool) -> float:
    """Steps per second of a plain loop: encode image and text, add noise, predict, step, each time.

    What stays frozen is in half precision, as in diffusers' scripts. ``reads_files``: it decodes its pictures as well,
    as these do by default; else they are in memory.
    """
    from diffusers import DDPMScheduler, StableDiffusionPipeline

    trained = {part.name for part in gpu_stages.method(name).trained}
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(mixed_precision(), torch.float32)
    pipeline = StableDiffusionPipeline.from_pretrained(bench.material.pipeline, safety_checker=None).to(DEVICE)
    vae, encoder, unet = pipeline.vae, pipeline.text_encoder, pipeline.unet
    for module, is_trained in ((vae, False), (encoder, "pseudo_word" in trained), (unet, "unet" in trained)):
        module.requires_grad_(False).to(torch.float32 if is_trained else dtype)
    unet.requires_grad_("unet" in trained)
    encoder.get_input_embeddings().weight.requires_grad_("pseudo_word" in trained)
    extra = torch.zeros((1, 1, encoder.config.hidden_size), device=DEVICE, requires_grad="conditioning" in trained)
    weights = [p for p in (*encoder.parameters(), *unet.parameters(), extra) if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-6)
    scaler = torch.amp.GradScaler(DEVICE, enabled=dtype == torch.float16)
    schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    names = {row["class"]: row["lemmas"] for row in random_pipelines.CLASSES}
    rows = list(images.read(bench.material.table("train")).itertuples())
    decoded = {row.image_id: np.asarray(images.load(row)) for row in rows}

    def in_half(module):
        return torch.autocast(DEVICE, dtype, enabled=next(module.parameters()).dtype != dtype)

    def step(batch):
        pixels = np.stack([np.asarray(images.load(row)) if reads_files else decoded[row.image_id] for row in batch])
        pixels = torch.from_numpy(pixels).to(DEVICE).permute(0, 3, 1, 2).to(dtype) / 127.5 - 1
        prompts = [f"A photo of {names[row[2]]}." for row in batch]
        tokens = pipeline.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            latent = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latent)
        times = torch.randint(0, 1000, (len(batch),), device=DEVICE)
        with in_half(encoder):
            encoded = (encoder(tokens.to(DEVICE))[0] + extra).to(dtype)
        with in_half(unet):
            predicted = unet(schedule.add_noise(latent, noise, times), times, encoder_hidden_states=encoded).sample
        scaler.scale(torch.nn.functional.mse_loss(predicted.float(), noise.float())).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    size = bench.size.batch
    parts = itertools.cycle([rows[i : i + size] for i in range(0, len(rows), size)])
    for part in itertools.islice(parts, 2):
        step(part)
    start = now()
    for part in itertools.islice(parts, steps):
        step(part)
    return steps / (now() - start)


def finetuning(bench: Bench, name: str) -> Figures:
    figures = {}
    clean()
    figures["steps/s"] = our_finetuning(bench, name)
    figures["peak GiB"] = peak()
    for reads_files, what in ((False, "plain loop, pictures in memory"), (True, "plain loop that reads its pictures")):
        clean()
        speed = plain_finetuning(bench, name, 10, reads_files)
        figures |= {f"{what}, steps/s": speed, f"ratio to {what}": figures["steps/s"] / speed}
    return figures | {"plain loop, peak GiB": peak()}


# --- sampling -----------------------------------------------------------------------------------------


def sampling_speed(bench: Bench) -> Figures:
    """The sampler, pictures written to a shard, against diffusers' pipeline one prompt at a time and in batches."""
    size = bench.size
    prompts = [f"A photo of {row['lemmas']}." for row in random_pipelines.CLASSES]
    clean()
    figures = our_sampling(bench, prompts) | {"peak GiB": peak()}
    clean()
    pipeline = _plain_pipeline(bench)
    for what, count, repeats in (("one prompt at a time", 1, 2), (f"{size.drawn} prompts at a time", size.drawn, 1)):
        batch = list(itertools.islice(itertools.cycle(prompts), count))
        pipeline(batch, height=size.side, width=size.side, num_inference_steps=2)
        start = now()
        for _ in range(repeats):
            pipeline(batch, height=size.side, width=size.side, num_inference_steps=size.steps)
        speed = count * repeats / (now() - start)
        figures[f"StableDiffusionPipeline, {what}, images/s"] = speed
        figures[f"ratio to {what}"] = float(figures["images/s"]) / speed
    return figures | {"StableDiffusionPipeline, peak GiB": peak()}


def our_sampling(bench: Bench, prompts: list[str]) -> Figures:
    size = bench.size
    settings = Generate(image_size=size.side, steps=size.steps, batch_size=size.drawn, threads=torch.get_num_threads())
    sampler = Sampler(bench.material.pipeline, gpu_stages.method("simple_prompt"), settings)
    count = 2 * size.drawn
    rows = [{"class": "c", "number": 0, "index": i, "prompt": prompts[i % 2]} for i in range(count)]
    sampler.draw([dict(row) for row in rows[: size.drawn]], (0, "warm", "up"))
    inside, folder = Inside(sampler.pipeline.unet), bench.new_folder()
    part = sampling.Work(lambda: sampler, batches(rows, size.drawn), (0, "bench"), "base", "measured")
    start = now()
    sampling.write_shard([part], folder / "shard.tar", folder / "shard.parquet")
    seconds = now() - start
    return {"images/s": count / seconds, "share of its time outside the U-Net": 1 - inside.seconds() / seconds}


def _plain_pipeline(bench: Bench):
    from diffusers import StableDiffusionPipeline

    dtype = torch.float16 if HAS_GPU else torch.float32
    pipeline = StableDiffusionPipeline.from_pretrained(bench.material.pipeline, dtype=dtype).to(DEVICE)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# --- latents ------------------------------------------------------------------------------------------


def encoding(bench: Bench) -> Figures:
    """Latents of pictures in files, against the encoder alone."""
    clean()
    ticks: list[tuple[int, float]] = []
    table, size = bench.material.table("train"), bench.size
    file = bench.new_folder() / "latents.safetensors"
    latents.encode(
        bench.material.pipeline,
        {table: file},
        image_size=size.side,
        mirrored=False,
        threads=torch.get_num_threads(),
        progress=lambda done, *_: ticks.append((done, now())),
    )
    (first, begin), (last, end) = ticks[0], ticks[-1]
    figures: Figures = {"images/s": (last - first) / (end - begin), "peak GiB": peak()}
    from diffusers import AutoencoderKL

    dtype = torch.float16 if HAS_GPU else torch.float32
    vae = AutoencoderKL.from_pretrained(bench.material.pipeline / "vae", dtype=dtype).to(DEVICE)
    pixels = torch.zeros(first, 3, size.side, size.side, device=DEVICE, dtype=dtype)
    with torch.inference_mode():
        vae.encode(pixels)
        start = now()
        for _ in range(3):
            vae.encode(pixels)
        speed = 3 * first / (now() - start)
    return figures | {
        "the encoder alone, images/s": speed,
        "ratio to the encoder alone": float(figures["images/s"]) / speed,
    }


# --- classifier ---------------------------------------------------------------------------------------


def classifying(bench: Bench) -> Figures:
    """Training images per second from pixels in memory, and with the input pipeline, against what the GPU could do."""
    size = bench.size
    clean()
    limit = plain_classifier(size)
    figures: Figures = {"a loop over pixels on the GPU, images/s": limit}
    clean()
    speed = from_pixels(size)
    figures |= {"from pixels in memory, images/s": speed, "from pixels in memory, share of the loop's": speed / limit}
    figures["peak GiB"] = peak()
    table = photos(bench.work / "photos", size)
    clean()
    sources = [("from pictures that fit into memory", 64 << 30, os.cpu_count())]
    sources += [(f"from files, {os.cpu_count()} workers", 0, os.cpu_count()), ("from files, default workers", 0, None)]
    for what, memory, workers in sources:
        speed = training_speed(bench, table, memory, workers)
        figures |= {f"{what}, images/s": speed, f"{what}, share of the loop's": speed / limit}
    return figures


def plain_classifier(size: Size) -> float:
    """Images per second of a plain mixed-precision loop whose batch lies on the GPU: what no training can exceed."""
    import torchvision

    network = torchvision.models.get_model(size.model, num_classes=1000).to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(DEVICE, enabled=HAS_GPU)
    pixels, target = _batch(size)
    pixels, target = pixels.to(DEVICE), target.to(DEVICE)

    def step():
        with torch.autocast(DEVICE, torch.float16, enabled=HAS_GPU):
            logits = network(pixels.float().div(127.5).sub(1))
        optimizer.zero_grad()
        scaler.scale(torch.nn.functional.cross_entropy(logits.float(), target)).backward()
        scaler.step(optimizer)
        scaler.update()

    return _images_per_second(step, size)


def from_pixels(size: Size) -> float:
    """The same of our own step, whose batches come from the host's memory."""
    determinism.require(strict=False)
    network = Network(Classifier(model=size.model), 1000)
    network.module.train()
    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(network.device.type, enabled=network.mixed)
    pixels, target = _batch(size)
    pixels, target = pixels.pin_memory() if HAS_GPU else pixels, target.to(network.device)
    return _images_per_second(lambda: network.step(pixels, target, size.classified, optimizer, scaler), size)


def _batch(size: Size) -> tuple:
    pixels = torch.randint(0, 256, (size.classified, size.crop, size.crop, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    return pixels, torch.randint(0, 1000, (size.classified,))


def _images_per_second(step: Callable, size: Size, steps: int = 12) -> float:
    for _ in range(3):
        step()
    start = now()
    for _ in range(steps):
        step()
    return steps * size.classified / (now() - start)


def training_speed(bench: Bench, table, memory: int, workers: int | None) -> float:
    """Images per second of a training's epochs, validation on some images included; at most ``memory`` bytes of
    decoded images are kept."""
    ticks, size, before = [], bench.size, crops.MEMORY
    settings = Classifier(
        model=size.model, image_size=size.crop, batch_size=size.classified, max_epochs=3, learning_rate=1e-3
    )
    settings = settings.model_copy(update={"threads": torch.get_num_threads(), "workers": workers})
    first = table.iloc[:16]
    crops.MEMORY = memory
    try:
        training.train(
            table, first, first, gpu_stages.KEYS, bench.new_folder(), settings, seed=0, save_minutes=60,
            progress=lambda *_: ticks.append(now()),
        )  # fmt: skip
    finally:
        crops.MEMORY = before
    return len(table) * (len(ticks) - 1) / (ticks[-1] - ticks[0])


def photos(folder: Path, size: Size):
    """An image table of pictures of 500 x 375 pixels as JPEG, ImageNet's usual, and of 512 x 512 as PNG, as they are
    generated, by turns; 64 files, each many times."""
    folder.mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = list(pool.map(lambda i: _photo(folder, i), range(64)))
    rows = (
        {"image_id": f"i{i}", "class": gpu_stages.KEYS[i % 2], "path": str(files[i % 64])} for i in range(size.epoch)
    )
    return images.table(rows)


def _photo(folder: Path, number: int) -> Path:
    random = np.random.default_rng(number)
    width, height = (500, 375) if number % 2 else (512, 512)
    coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    pixels = (pixels + random.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)
    path = folder / f"{number}.{'jpg' if number % 2 else 'png'}"
    Image.fromarray(pixels).save(path, quality=90)
    return path


# --- a small card -------------------------------------------------------------------------------------


def small_card(bench: Bench) -> Figures:
    """The default settings on a card of 16 GB: the peak of each stage, or the sentence that it ends with."""
    size = bench.size
    defaults = {"epochs": 1, "horizontal_flip": False, "validation_images": 1}
    if size == TINY:
        defaults |= {"batch_size": size.batch, "images_at_a_time": size.batch}
    else:
        defaults |= {"batch_size": 64, "images_at_a_time": 16}

    def finetune(name: str):
        return gpu_stages.finetune(bench.material, bench.new_folder(), name, **defaults)

    def draw():
        at_a_time = {"batch_size": 2 * size.drawn, "steps": 2}
        return gpu_stages.draw(bench.material, bench.new_folder(), "simple_prompt", count=2 * size.drawn, **at_a_time)

    stages = {f"fine-tuning, {name}": functools.partial(finetune, name) for name in ("ft_conditioning", "imagic")}
    stages |= {f"sampling, {2 * size.drawn} at a time": draw, "classifier": lambda: from_pixels(size)}
    figures: Figures = {}
    for what, stage in stages.items():
        with gpu_stages.card(gpu_stages.V100):
            clean()
            try:
                stage()
                figures[f"{what}, GiB"] = peak()
            except (RuntimeError, ValueError, SystemExit) as error:
                figures[what] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return figures


# --- all of them --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A part of the benchmark; ``seconds`` that it takes on an H100, about."""

    title: str
    measure: Callable[[Bench], Figures]
    seconds: float


SECTIONS = {
    "sampling": Section("sampling, 50 steps, 16 at a time, safety checker and files included", sampling_speed, 50),
    "conditioning": Section(
        "fine-tuning a conditioning, 8 at a time", functools.partial(finetuning, name="ft_conditioning"), 35
    ),
    "classifier": Section("classifier, ResNet-50, 224 pixels, 256 at a time", classifying, 60),
    "unet": Section(
        "fine-tuning a conditioning and the denoiser, 8 at a time", functools.partial(finetuning, name="imagic"), 45
    ),
    "pseudo_word": Section(
        "fine-tuning a pseudo-word, 8 at a time", functools.partial(finetuning, name="textual_inversion"), 30
    ),
    "latents": Section("latents", encoding, 10),
    "small_card": Section("default settings on a card of 16 GB", small_card, 45),
}


def facts() -> Figures:
    import diffusers
    import transformers

    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers)}
    if not HAS_GPU:
        return {"card": f"none ({platform.machine()})", "precision": "float32"} | versions
    card = torch.cuda.get_device_properties(0)
    return {"card": card.name, "GiB": card.total_memory / gpu_stages.GIB, "precision": mixed_precision()} | versions


def show(title: str, figures: Figures) -> None:
    print(title, flush=True)
    for name, value in figures.items():
        print(f"  {name}: {value:.3g}" if isinstance(value, float) else f"  {name}: {value}", flush=True)


@contextlib.contextmanager
def ready(pipeline: Path | None, size: Size) -> Iterator[Bench]:
    """The material in a temporary folder, in memory where there is room."""
    with tempfile.TemporaryDirectory(prefix="augbench-gpu-", dir=random_pipelines.roomy_folder(25)) as folder:
        name = "tiny" if size == TINY else "v1.4"
        material = gpu_stages.make(Path(folder), name, size.side, size.trained, validation=1, pipeline=pipeline)
        yield Bench(size, material, Path(folder))


def main(arguments: argparse.Namespace) -> None:
    started, results = time.monotonic(), {"machine": facts()}
    show("machine", results["machine"])
    with ready(arguments.pipeline, TINY if arguments.tiny else Size()) as bench:
        print(f"ready after {time.monotonic() - started:.0f} s", flush=True)
        for name in arguments.only or SECTIONS:
            section, began = SECTIONS[name], time.monotonic()
            if began - started + section.seconds > arguments.seconds:
                results[name] = {"left out": f"takes {section.seconds} s"}
            else:
                try:
                    results[name] = section.measure(bench)
                except Exception as error:
                    traceback.print_exc()
                    results[name] = {"failed": f"{type(error).__name__}: {error}"}
            show(f"{section.title} ({time.monotonic() - began:.0f} s)", results[name])
            if arguments.json:
                write_json(arguments.json, results)


def section_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r} (known: {', '.join(SECTIONS)})")
    return names


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=section_names, help=f"sections, separated by commas: {', '.join(SECTIONS)}")
    parser.add_argument("--seconds", type=float, default=600, help="that all may take")
    parser.add_argument("--tiny", action="store_true", help="a tiny pipeline")
    parser.add_argument("--pipeline", type=Path, help="folder of v1.4 with random weights, kept between runs")
    parser.add_argument("--json", type=Path, help="file for the figures")
    main(parser.parse_args())
