"""The diffusion model backbone: finds or fetches a diffusers pipeline, and its safety checker."""

import os
import shutil
from pathlib import Path

from augbench.files import whole


def resolve(model: str, folder: str | Path) -> None:
    """Put the pipeline ``model``, a local diffusers folder or a hub id, at ``folder``.

    A local folder is linked file by file where the disk allows it, else copied. A hub id is downloaded,
    weights as safetensors only. Raises FileNotFoundError with what to write when it is no pipeline.
    """
    with whole(folder) as temporary:
        if Path(model).is_dir():
            # Hidden files are not the pipeline's: Snakemake's time stamp, linked, would make the original look new.
            hidden = shutil.ignore_patterns(".*")
            shutil.copytree(model, temporary, copy_function=_link_or_copy, ignore=hidden)
        else:
            from huggingface_hub import snapshot_download

            snapshot_download(
                model,
                local_dir=temporary,
                allow_patterns=["model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors"],
            )
        if not (temporary / "model_index.json").is_file():
            raise FileNotFoundError(f"{model} has no model_index.json; give a diffusers pipeline folder or hub id")


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
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, **UNCHECKED)
    if gpu:
        pipeline.unet.to(memory_format=torch.channels_last)
    return pipeline.to("cuda" if gpu else "cpu")


class SafetyChecker:
    """The backbone's safety checker, for generated and retrieved images alike (paper, sections 3 and 3.1)."""

    def __init__(self, pipeline_folder: str | Path):
        import torch
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from diffusers.utils import logging
        from transformers import CLIPImageProcessor

        # It would say "a black image will be returned", which is not what happens here.
        logging.get_logger(StableDiffusionSafetyChecker.__module__).setLevel(logging.ERROR)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        folder = Path(pipeline_folder)
        self._model = StableDiffusionSafetyChecker.from_pretrained(folder / "safety_checker").to(self._device).eval()
        self._processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor")

    def unsafe(self, pictures: list, batch_size: int = 64) -> list[bool]:
        """For each RGB ``PIL.Image`` whether the checker refuses it."""
        import numpy as np

        refused = []
        for start in range(0, len(pictures), batch_size):
            part = pictures[start : start + batch_size]
            pixels = self._processor(part, return_tensors="pt").pixel_values.to(self._device)
            # The checker blackens what it is given to blacken; only its verdict is wanted here.
            _, flags = self._model(clip_input=pixels, images=[np.zeros((1, 1, 3)) for _ in part])
            refused += [bool(flag) for flag in flags]
        return refused
