"""The diffusion model backbone: finds or fetches a diffusers pipeline, and what checks its images."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from augbench.core import finite
from augbench.core.files import whole
from augbench.models import local_files

PIPELINE_FILES = ["model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
CHECKER_FILES = ["config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin"]
CHECKER_FILES += ["safety_checker/*.json", "safety_checker/model.safetensors", "feature_extractor/*.json"]


def resolve(model: str, folder: str | Path, has_checker: bool = True) -> None:
    """Put the pipeline ``model``, a local diffusers folder or a hub id, at ``folder``.

    A local folder is linked file by file where the disk allows it, else copied. A hub id is downloaded,
    weights as safetensors only. Raises ValueError with what to write when it cannot be had or used, or has no safety
    checker and should have one.
    """
    with whole(folder) as temporary:
        _copy(model, temporary, "backbone", PIPELINE_FILES)
        try:
            local_files.check_pipeline(temporary, has_checker)
        except ValueError as error:
            raise ValueError(str(error).replace(str(temporary), model)) from None


def resolve_checker(model: str, folder: str | Path) -> None:
    """Put the safety checker ``model``, a local folder or a hub id, at ``folder``, as it lies in a pipeline's: with the
    folders safety_checker and feature_extractor. Raises ValueError with what to write when it cannot be had or used."""
    with whole(folder) as temporary:
        _copy(model, temporary, "safety checker", CHECKER_FILES)
        try:
            local_files.check_safety_checker(temporary)
        except ValueError as error:
            raise ValueError(str(error).replace(str(temporary), model)) from None
        own, processor = (temporary / part for part in local_files.CHECKER)
        if not own.is_dir():
            files = [file for file in temporary.iterdir() if file.is_file()]
            own.mkdir()
            processor.mkdir()
            for file in files:
                file.rename((processor if file.name == "preprocessor_config.json" else own) / file.name)


def _copy(model: str, folder: Path, what: str, patterns: list[str]) -> None:
    if local_files.is_folder(model, what):
        # Hidden files are not the model's: Snakemake's time stamp, linked, would make the original look new.
        hidden = shutil.ignore_patterns(".*")
        shutil.copytree(model, folder, copy_function=_link_or_copy, ignore=hidden)
    else:
        _fetch(model, folder, what, patterns)


def _fetch(model: str, folder: Path, what: str, patterns: list[str]) -> None:
    from huggingface_hub import snapshot_download

    try:
        # Most repositories hold the same weights several times; of these, only the plain ones are read.
        variants = ["*.fp16*", "*.non_ema*"]
        snapshot_download(model, local_dir=folder, allow_patterns=patterns, ignore_patterns=variants)
    except Exception as error:  # of several libraries, for a network, a hub or a licence
        words = " ".join(str(error).split())[:300]
        raise ValueError(f"{model} cannot be fetched from the hub: {words}; or give a {what}'s folder") from None


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


# The pipeline's own checker blackens images; SafetyChecker says which are to be replaced.
UNCHECKED = {"safety_checker": None, "requires_safety_checker": False}


def load_pipeline(folder: str | Path):
    """The diffusers pipeline in ``folder`` without its safety checker; on a GPU in half precision."""
    import torch
    from diffusers import StableDiffusionPipeline

    gpu = torch.cuda.is_available()
    dtype = torch.float16 if gpu else torch.float32
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=dtype, **UNCHECKED)
    if gpu:
        pipeline.unet.to(memory_format=torch.channels_last)
    return pipeline.to("cuda" if gpu else "cpu")


def load_vae(folder: str | Path):
    """The autoencoder of the pipeline in ``folder``, alone; on a GPU in half precision."""
    import torch
    from diffusers import AutoencoderKL

    gpu = torch.cuda.is_available()
    vae = AutoencoderKL.from_pretrained(Path(folder) / "vae", dtype=torch.float16 if gpu else torch.float32)
    return vae.to("cuda" if gpu else "cpu")


def in_enough_precision(model, compute: Callable, inputs):
    """``compute(inputs)``, a tensor of items that ``model`` gives for a tensor of its own precision. Where that is
    float16, items with numbers that it could not hold are computed again in float32."""
    import torch

    outputs = compute(inputs)
    if model.dtype != torch.float16 or not (bad := finite.bad_items(outputs)):
        return outputs
    print(
        f"{len(bad)} of {len(inputs)} images are computed again in float32, for which float16 is too small", flush=True
    )
    model.float()
    try:
        outputs[bad] = compute(inputs[bad].float()).to(outputs.dtype)
    finally:
        model.half()
    return outputs


class NoChecker:
    """Stands for the safety checker of a study that has none."""

    def unsafe(self, pictures: list) -> list[bool]:
        return [False] * len(pictures)


def safety_checker(folder: str | Path | None) -> "SafetyChecker | NoChecker":
    """What judges generated and retrieved images; without a folder nothing does."""
    return NoChecker() if folder is None else SafetyChecker(folder)


class SafetyChecker:
    """A safety checker, for generated and retrieved images alike (paper, sections 3 and 3.1): of a pipeline's folder,
    or of one with the same folders safety_checker and feature_extractor."""

    def __init__(self, pipeline_folder: str | Path):
        import torch
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from diffusers.utils import logging
        from transformers import CLIPImageProcessor

        # It would say "a black image will be returned", which is not what happens here.
        logging.get_logger(StableDiffusionSafetyChecker.__module__).setLevel(logging.ERROR)
        gpu = torch.cuda.is_available()
        self._device, self._dtype = ("cuda", torch.float16) if gpu else ("cpu", torch.float32)
        folder = Path(pipeline_folder)
        result: Any = StableDiffusionSafetyChecker.from_pretrained(folder / "safety_checker", output_loading_info=True)
        model, loaded = result
        if missing := sorted(loaded["missing_keys"]):  # transformers would fill them with random numbers
            raise RuntimeError(f"the safety checker in {folder} has no weights {missing[0]}; give another backbone")
        self._model = model.to(self._device, self._dtype).eval()
        finite.check_weights(self._model, f"the safety checker in {folder}", "give another backbone")
        self._processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor")

    def unsafe(self, pictures: list, batch_size: int = 64) -> list[bool]:
        """For each RGB ``PIL.Image`` whether the checker refuses it."""
        import numpy as np

        refused = []
        for start in range(0, len(pictures), batch_size):
            part = pictures[start : start + batch_size]
            pixels = self._processor(part, return_tensors="pt").pixel_values
            pixels = pixels.to(self._device, self._dtype)
            # The checker blackens what it is given to blacken; only its verdict is wanted here.
            _, flags = self._model(clip_input=pixels, images=[np.zeros((1, 1, 3)) for _ in part])
            refused += [bool(flag) for flag in flags]
        return refused
