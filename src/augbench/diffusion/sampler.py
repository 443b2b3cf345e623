"""Stable Diffusion's sampler: it turns planned rows into pictures step by step, wherever conditioning and start come
from."""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from augbench.core import finite
from augbench.core.gpu_memory import Portions
from augbench.core.seeds import derive, torch_generator
from augbench.diffusion import latents
from augbench.diffusion.drawer import SMALLER, Drawer, as_pictures, names_of
from augbench.diffusion.text_encodings import TextEncodings
from augbench.models.backbones import AS_IT_COMES, in_enough_precision, load_pipeline, with_defaults
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Generate, Sampling
from augbench.study.sections.models import Loading

DECODED = 8  # images that the VAE decodes at a time; a T4 has no room for more at 512 pixels


def step_noise(scheduler, seeds: Sequence[int]) -> dict:
    """What ``scheduler.step`` wants so that noise it draws itself depends on each image's seed alone.

    Raises ValueError for a scheduler that cannot be told.
    """
    if "generator" in inspect.signature(scheduler.step).parameters:
        return {"generator": [torch_generator(derive(seed, "steps")) for seed in seeds]}
    if "noise_sampler_seed" in scheduler.config:
        kind = type(scheduler).__name__
        raise ValueError(
            f"{kind} draws noise for whole batches; give the backbone another scheduler, e.g. PNDMScheduler"
        )
    return {}


class Sampler(Drawer):
    """A Stable Diffusion 1.x or 2.x in memory, ready to turn batches of rows into pictures.

    ``train`` and ``train_latents`` are the training images and the file of their posteriors
    (:mod:`augbench.diffusion.latents`), for methods that begin from them; ``safety`` is the folder of the safety
    checker, if there is one. An empty prompt is not guided.
    """

    settings: Sampling

    def __init__(
        self,
        pipeline_folder: str | Path,
        method: Method,
        settings: Generate,
        train: pd.DataFrame | None = None,
        train_latents: str | Path | None = None,
        safety: str | Path | None = None,
        loading: Loading = AS_IT_COMES,
    ):
        super().__init__(method, with_defaults(settings, pipeline_folder), safety)
        self.denoised_at_a_time = Portions(settings.batch_size, "images to denoise (`generate.batch_size`)", SMALLER)
        self.decoded_at_a_time = Portions(DECODED, "images to decode", SMALLER)
        self.pipeline: Any = load_pipeline(pipeline_folder, loading)
        self.device, self.dtype = self.pipeline.device, self.pipeline.unet.dtype
        self.load({})
        if self.start.begins_from_images:
            scaling = self.pipeline.vae.config.scaling_factor
            self.training = latents.start_images(train_latents, train, scaling)

    def load(self, candidate):
        super().load(candidate)
        self.encode = TextEncodings(self.pipeline.tokenizer, self.pipeline.text_encoder)

    def noise(self, seed: int):
        """Standard normal latents (channels, height, width), the same for every device."""
        side = self.settings.image_size // self.pipeline.vae_scale_factor
        shape = (self.pipeline.unet.config.in_channels, side, side)
        return torch.randn(shape, generator=torch_generator(seed))

    def denoise(self, rows: Sequence[Mapping]) -> list:
        """The pictures of a batch of rows, as RGB ``PIL.Image``; rows have ``seed`` and what their start notes."""
        portions = self.denoised_at_a_time(lambda part: self._decode(self._denoised(part), part), rows)
        return list(itertools.chain.from_iterable(portions))

    def _denoised(self, rows: Sequence[Mapping]):
        """The latents of rows, (n, channels, height, width)."""
        scheduler = self.pipeline.scheduler
        guidance = self.settings.guidance if any(row["prompt"] for row in rows) else 1.0
        guides = self.method.guide.encodings(rows, self.encode, self.candidate).to(self.device, self.dtype)
        if guidance > 1:
            guides = torch.cat([self.encode([self.settings.negative_prompt] * len(rows)), guides])
        scheduler.set_timesteps(self.settings.steps)  # on the CPU: a scheduler that reads them must not wait for a GPU
        noise = torch.stack([self.noise(row["seed"]) for row in rows])
        begin, timesteps = self.start.begin(rows, noise, scheduler, self.settings, self.training)
        current = begin.to(self.device, self.dtype)
        fresh = step_noise(scheduler, [row["seed"] for row in rows])
        for step, step_there in zip(timesteps, timesteps.to(self.device), strict=True):
            inputs = scheduler.scale_model_input(torch.cat([current] * 2) if guidance > 1 else current, step)
            output = self.pipeline.unet(inputs, step_there, encoder_hidden_states=guides, return_dict=False)[0]
            if guidance > 1:
                without, towards = output.chunk(2)
                output = without + guidance * (towards - without)
            current = scheduler.step(output, step, current, return_dict=False, **fresh)[0]
        return current

    def _decode(self, denoised, rows: Sequence[Mapping]) -> list:
        """The pictures of latents. Raises RuntimeError naming the images for which a model gives no numbers."""
        vae = self.pipeline.vae
        names = names_of(rows, self.name)
        precision = f"its weights may be damaged, or too large for {str(self.dtype).removeprefix('torch.')}"
        finite.check(denoised, "the denoiser (unet)", names, precision)

        def decode(part):
            return vae.decode(part, return_dict=False)[0].float()

        scaled = denoised / vae.config.scaling_factor
        decoded = torch.cat(self.decoded_at_a_time(lambda part: in_enough_precision(vae, decode, part), scaled))
        finite.check(decoded, "the decoder (vae)", names, "its weights may be damaged")
        return as_pictures((decoded / 2 + 0.5).clamp(0, 1))
