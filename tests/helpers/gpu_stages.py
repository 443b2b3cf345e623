"""Every stage that computes on a GPU, on material so small that it takes seconds: run by tests on the GPU, and for
comparison in a process of its own on the CPU.

    python tests/helpers/gpu_stages.py '{"material": FOLDER, "out": FOLDER, "stages": [NAME, ...]}'
"""

import contextlib
import dataclasses
import functools
import gc
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import random_pipelines
import yaml

from augbench import images
from augbench.study.methods import Method
from augbench.study.sections.classifier import Classifier
from augbench.study.sections.diffusion import Finetune, Generate
from augbench.study.sections.models import BackboneTraining, ClipTraining

ROOT = Path(__file__).parents[2]
GIB = 2**30
CONTEXT = 0.45  # GiB of a card that CUDA takes for itself
V100 = 15.77  # GiB of a card that is sold as one with 16 GB
KEY = (1, "gpu")
KEYS = [row["class"] for row in random_pipelines.CLASSES]
SETTINGS = Classifier(model="resnet18", image_size=32, batch_size=8, learning_rate=0.01, max_epochs=3)


@dataclasses.dataclass(frozen=True)
class Material:
    """A pipeline, the class table, pictures of ``side`` pixels with captions, and their latents."""

    folder: Path
    side: int = 32

    def __getattr__(self, name: str) -> Path:
        files = {"classes": "classes.csv", "shard": "pool.tar"}
        return self.folder / files.get(name, name)

    def table(self, split: str) -> Path:
        return self.folder / f"{split}.parquet"

    def latents(self, split: str) -> Path:
        return self.folder / f"{split}.safetensors"


def make(
    folder: Path,
    size: str = "tiny",
    side: int = 32,
    train: int = 24,
    validation: int = 8,
    pipeline: Path | None = None,
) -> Material:
    """Material with a pipeline of this size (:func:`random_pipelines.write`), or with that in the folder ``pipeline``,
    where it is written first if it is not there."""
    material = Material(folder, side)
    if not (pipeline and pipeline.exists()):
        random_pipelines.write(pipeline or material.pipeline, size)
    if pipeline:
        material.pipeline.symlink_to(pipeline.resolve())
    random_pipelines.write_classes(material.classes)
    pictures = random_pipelines.write_pictures(folder / "pictures", side, train + validation)
    images.write(material.table("train"), pictures.iloc[:train])
    images.write(material.table("validation"), pictures.iloc[train:])
    with images.ShardWriter(material.shard) as shard:
        for row in pictures.itertuples():
            members = {"png": images.load_bytes(row), "txt": f"a picture of {row[2]}", "json": {}}
            shard.add(row.image_id, members, image="png")
    encode(material, folder)
    return material


def method(name: str, **changes) -> Method:
    rows = yaml.safe_load((ROOT / "config" / "methods.yaml").read_text(encoding="utf-8"))["methods"]
    return Method.model_validate(rows[name] | changes)


# --- the stages: each writes into ``out`` and returns figures by name, arrays of any shape ------------


def encode(material: Material, out: Path) -> dict:
    from augbench.diffusion import latents

    splits = ("train", "validation")
    files = {material.table(split): out / material.latents(split).name for split in splits}
    latents.encode(material.pipeline, files, image_size=material.side, mirrored=True, threads=1)
    stored = latents.read(files[material.table("train")], images.read(material.table("train")))
    return {name: values.float().numpy() for name, values in stored.items()}


def finetune(
    material: Material,
    out: Path,
    name: str,
    *,
    seed: int = 0,
    save_minutes: float = 60,
    epochs: int = 2,
    progress: Callable = lambda done, total, note: None,
    **changes,
) -> dict:
    """Fine-tune a method of the table to its last epoch; several forward passes to a batch, mirrored images."""
    from augbench.diffusion import candidates, finetuning

    inputs = {"backbone": material.pipeline, "classes": material.classes}
    for split in ("train", "validation"):
        inputs |= {split: material.table(split), f"{split}_latents": material.latents(split)}
    settings = {"batch_size": 8, "images_at_a_time": 4, "horizontal_flip": True}
    finetuning.finetune(
        finetuning.FinetuneInputs.model_validate(inputs),
        method(name, candidates=[f"epoch-{epochs}"]),
        Finetune.model_validate(settings | {"max_epochs": epochs} | changes),
        out / "lr-1",
        rate=1.0,
        seed=seed,
        save_minutes=save_minutes,
        progress=progress,
    )
    history = pd.read_csv(candidates.history_file(out / "lr-1"))
    return {name: history[name].to_numpy() for name in ("train_loss", "validation_loss")}


def draw(
    material: Material, out: Path, name: str, candidate: Mapping | None = None, count: int = 12, **changes
) -> dict:
    """Generate images of both classes in batches of 8."""
    from augbench.diffusion import sampling
    from augbench.diffusion.sampler import Sampler
    from augbench.diffusion.sampling_plan import batches, plan
    from augbench.study import classes

    settings = Generate.model_validate({"image_size": material.side, "steps": 8, "guidance": 3.0} | changes)
    row = method(name)
    rows = plan(classes.kept(material.classes), [count // 2] * 2, row, KEY)
    start = (images.read(material.table("train")), material.latents("train")) if row.start.begins_from_images else ()

    def sampler():
        return Sampler(material.pipeline, row, settings, *start).use(candidate or {})

    part = sampling.Work(sampler, batches(rows, 8), KEY, "base", "tested")
    sampling.write_shard([part], out / "shard.tar", out / "images.parquet")
    drawn = [images.load(image) for image in images.read(out / "images.parquet").itertuples()]
    sampling.forget(out / "shard.tar")
    return {"pixels": np.stack([np.asarray(picture, np.float32) for picture in drawn])}


def classify(material: Material, out: Path, save_minutes: float = 60, **changes) -> dict:
    from augbench.classifier import training

    train, validation = (images.read(material.table(split)) for split in ("train", "validation"))
    settings = SETTINGS.model_copy(update=changes)
    training.train(train, validation, validation, KEYS, out, settings, seed=0, save_minutes=save_minutes)
    training.forget(out)
    history = pd.read_csv(out / "history.csv")
    return {"train_loss": history["train_loss"].to_numpy()[:1]}  # later ones drift apart, as any training does


def score(material: Material, out: Path, weights: Path) -> dict:
    """Features of the pictures by the classifier in ``weights``."""
    from augbench.classifier import scoring

    examine = scoring.examiner(weights, KEYS, SETTINGS)
    batches = [batch.cpu().numpy() for batch, _ in examine(images.read(material.table("train")))]
    features = np.concatenate(batches)
    np.save(out / "features.npy", features)
    return {"features": features}


CLIP = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "projection": 16, "text_tokens": 16}
CLIP = ClipTraining.model_validate(CLIP | {"steps": 10, "batch_size": 8, "learning_rate": 1e-3})
BACKBONE = {"image_size": 32, "vae_channels": [8, 8, 8], "unet_channels": [16, 16], "text_tokens": 20}
BACKBONE |= {"vae_steps": 10, "vae_batch_size": 8, "vae_learning_rate": 1e-3}
BACKBONE = BackboneTraining.model_validate(BACKBONE | {"unet_steps": 10, "batch_size": 8, "learning_rate": 1e-3})


def train_small_models(material: Material, out: Path) -> dict:
    """CLIP, safety checker, autoencoder and denoiser, each for ten steps; their last losses."""
    from augbench.models import train_clip, train_diffusion

    notes: dict[str, str] = {}

    def noting(name):
        return lambda done, total, note: notes.update({name: note})

    shards, clip, vae, safety = [material.shard], out / "clip", out / "vae", out / "safety"
    words = {"unsafe_words": ["six"], "threads": 1}
    with contextlib.ExitStack() as stack:
        for module in (train_clip, train_diffusion):
            stack.enter_context(mock.patch.object(module, "write_tokenizer", random_pipelines.write_tokenizer))
        train_clip.train(shards, clip, CLIP, seed=0, progress=noting("clip"))
        train_diffusion.train_safety_checker(shards, clip, safety, seed=0, progress=noting("safety"), **words)
        train_diffusion.train_vae(shards, vae, BACKBONE, seed=0, progress=noting("vae"))
        folders = (vae, clip, safety, out / "pipeline")
        train_diffusion.train_unet(shards, *folders, BACKBONE, seed=0, progress=noting("unet"))
    return {name: np.array([float(re.search(r"[\d.]+", note)[0])]) for name, note in notes.items()}


FINETUNED = ("ft_conditioning", "textual_inversion", "imagic", "pseudoword_dm")
STAGES: dict[str, Callable[[Material, Path], dict]] = {
    "encode": encode,
    **{f"finetune_{name}": functools.partial(finetune, name=name) for name in FINETUNED},
    **{f"draw_{name}": functools.partial(draw, name=name) for name in ("clip_prompts", "boomerang")},
    "classify": classify,
    "train_small_models": train_small_models,
}


@contextlib.contextmanager
def card(gib: float):
    """Within the block a GPU has so many GiB, those included that CUDA takes for itself; nothing without a GPU."""
    import torch

    if not torch.cuda.is_available():
        yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory / GIB
    torch.cuda.set_per_process_memory_fraction(min(1.0, (gib - CONTEXT) / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def run(name: str, material: Material, out: Path, **changes) -> dict:
    """Run a stage in a folder of its own below ``out``."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    return STAGES[name](material, folder, **changes)


def main(material: str, out: str, stages: list[str], changes: Mapping | None = None) -> None:
    for name in stages:
        figures = run(name, Material(Path(material)), Path(out), **(changes or {}))
        np.savez(Path(out) / f"{name}.npz", **figures)
        if name == "classify":
            np.savez(Path(out) / "score.npz", **score(Material(Path(material)), Path(out), Path(out) / name))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
