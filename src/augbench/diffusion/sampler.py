"""The sampler: a diffusion model that turns planned rows into pictures, wherever conditioning and start come from."""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
import PIL.Image
import torch

from augbench.core import finite
from augbench.core.gpu_memory import Portions
from augbench.core.seeds import derive, torch_generator
from augbench.diffusion import latents
from augbench.diffusion.text_encodings import TextEncodings
from augbench.models.backbones import in_enough_precision, load_pipeline, safety_checker
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Generate
from augbench.study.starts import Generated

DECODED = 8  # images that the VAE decodes at a time; a T4 has no room for more at 512 pixels
SMALLER = "write a smaller `generate: {image_size: ...}`, or take a GPU with more memory"


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


class Sampler:
    """A diffusion model in memory, ready to turn batches of rows into pictures.

    ``train`` and ``train_latents`` are the training images and the file of their posteriors
    (:mod:`augbench.diffusion.latents`), for methods that begin from them; ``safety`` is the folder of the safety
    checker, if there is one. An empty prompt is not guided.
    """

    def __init__(
        self,
        pipeline_folder: str | Path,
        method: Method,
        settings: Generate,
        train: pd.DataFrame | None = None,
        train_latents: str | Path | None = None,
        safety: str | Path | None = None,
    ):
        torch.set_num_threads(settings.threads)
        self.denoised_at_a_time = Portions(settings.batch_size, "images to denoise (`generate.batch_size`)", SMALLER)
        self.decoded_at_a_time = Portions(DECODED, "images to decode", SMALLER)
        self.method, self.settings, self.training = method, settings, None
        self.pipeline: Any = load_pipeline(pipeline_folder)
        self.checker = safety_checker(safety)
        self.device, self.dtype = self.pipeline.device, self.pipeline.unet.dtype
        self.use({})
        if self.start.begins_from_images:
            scaling = self.pipeline.vae.config.scaling_factor
            self.training = latents.start_images(train_latents, train, scaling)

    @property
    def start(self) -> Generated:
        return cast(Generated, self.method.start)  # methods with other starts have no sampler

    def use(self, candidate: Mapping, name: str = "base") -> "Sampler":
        """Take a fine-tuning's result (:mod:`augbench.study.parts`) in place of another of the same method; ``name``
        is for messages."""
        if candidate:
            for part in self.method.trained:
                part.load(self.pipeline, candidate)
        self.candidate, self.name = candidate, name
        self.encode = TextEncodings(self.pipeline.tokenizer, self.pipeline.text_encoder, self.method.guide)
        return self

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
        names = [
            f"image {row['index']} of class {row['class']}, candidate {self.name}, prompt {row['prompt']!r}"
            for row in rows
        ]
        precision = f"its weights may be damaged, or too large for {str(self.dtype).removeprefix('torch.')}"
        finite.check(denoised, "the denoiser (unet)", names, precision)

        def decode(part):
            return vae.decode(part, return_dict=False)[0].float()

        scaled = denoised / vae.config.scaling_factor
        decoded = torch.cat(self.decoded_at_a_time(lambda part: in_enough_precision(vae, decode, part), scaled))
        finite.check(decoded, "the decoder (vae)", names, "its weights may be damaged")
        # As bytes they leave the GPU in a quarter of the time.
        pixels = (decoded / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        return [PIL.Image.fromarray(each) for each in pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()]

    def draw(self, rows: list[dict], key: tuple) -> list:
        """Pictures of a batch, those that the safety checker refuses drawn again with the next seed (section 3), and
        from another start image where they start from one.

        Notes ``seed``, ``replaced``, the number of refused draws, and what the method's start chooses, in the rows.
        Raises RuntimeError when an image was refused more than ``max_replacements`` times.
        """
        pictures = [None] * len(rows)
        waiting = list(range(len(rows)))
        with torch.inference_mode():
            for attempt in range(self.settings.max_replacements + 1):
                for i in waiting:
                    seed = derive(*key, rows[i]["class"], rows[i]["index"], attempt)
                    rows[i] |= {"seed": seed, "replaced": attempt}
                    rows[i] |= self.start.choose(rows[i], key, attempt, self.training)
                drawn = self.denoise([rows[i] for i in waiting])
                refused = self.checker.unsafe(drawn)
                for i, picture in zip(waiting, drawn, strict=True):
                    pictures[i] = picture
                waiting = [i for i, bad in zip(waiting, refused, strict=True) if bad]
                if not waiting:
                    return pictures
        raise RuntimeError(self._refusal(rows[waiting[0]]))

    def _refusal(self, row: Mapping) -> str:
        """A sentence for an image that was refused too often: why, and what the user of such a method can change."""
        draws = self.settings.max_replacements + 1
        cause, remedy = self.start.refused(row, draws, self.training) or self.method.guide.refused(row)
        return (
            f"the safety checker refused {draws} draws {cause} of the class {row['class']}; "
            f"{remedy}, or raise `generate.max_replacements`"
        )
