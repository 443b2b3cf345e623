"""The sampler: a diffusion model that turns planned rows into pictures, wherever conditioning and start come from."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from augbench.core import finite
from augbench.core.seeds import derive, torch_generator
from augbench.diffusion import latents
from augbench.diffusion.text_encodings import TextEncodings
from augbench.models.backbones import load_pipeline, safety_checker
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Generate

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
        self.method, self.settings, self.training = method, settings, None
        self.pipeline = load_pipeline(pipeline_folder)
        self.checker = safety_checker(safety)
        self.device, self.dtype = self.pipeline.device, self.pipeline.unet.dtype
        self.use({})
        if method.start.begins_from_images:
            scaling = self.pipeline.vae.config.scaling_factor
            self.training = latents.start_images(train_latents, train, scaling)

    def use(self, candidate: Mapping) -> "Sampler":
        """Take a fine-tuning's result (:mod:`augbench.study.parts`) in place of another of the same method."""
        if candidate:
            for part in self.method.trained:
                part.load(self.pipeline, candidate)
        self.candidate = candidate
        self.encode = TextEncodings(self.pipeline.tokenizer, self.pipeline.text_encoder, self.method.guide)
        return self

    def noise(self, seed: int):
        """Standard normal latents (channels, height, width), the same for every device."""
        side = self.settings.image_size // self.pipeline.vae_scale_factor
        shape = (self.pipeline.unet.config.in_channels, side, side)
        return torch.randn(shape, generator=torch_generator(seed))

    def denoise(self, rows: Sequence[Mapping]) -> list:
        """The pictures of a batch of rows, as RGB ``PIL.Image``; rows have ``seed`` and what their start notes."""
        scheduler = self.pipeline.scheduler
        guidance = self.settings.guidance if any(row["prompt"] for row in rows) else 1.0
        guides = self.method.guide.encodings(rows, self.encode, self.candidate).to(self.device, self.dtype)
        if guidance > 1:
            guides = torch.cat([self.encode([self.settings.negative_prompt] * len(rows)), guides])
        scheduler.set_timesteps(self.settings.steps, device=self.device)
        noise = torch.stack([self.noise(row["seed"]) for row in rows])
        begin, timesteps = self.method.start.begin(rows, noise, scheduler, self.settings, self.training)
        current = begin.to(self.device, self.dtype)
        fresh = step_noise(scheduler, [row["seed"] for row in rows])
        for step in timesteps:
            inputs = scheduler.scale_model_input(torch.cat([current] * 2) if guidance > 1 else current, step)
            output = self.pipeline.unet(inputs, step, encoder_hidden_states=guides, return_dict=False)[0]
            if guidance > 1:
                without, towards = output.chunk(2)
                output = without + guidance * (towards - without)
            current = scheduler.step(output, step, current, return_dict=False, **fresh)[0]
        return self._decode(current, rows)

    def _decode(self, denoised, rows: Sequence[Mapping]) -> list:
        """The pictures of latents. Raises RuntimeError naming the images for which a model gives no numbers."""
        vae = self.pipeline.vae
        names = [f"image {row['index']} of class {row['class']}, prompt {row['prompt']!r}" for row in rows]
        precision = f"its weights may be damaged, or too large for {str(self.dtype).removeprefix('torch.')}"
        finite.check(denoised, "the denoiser (unet)", names, precision)
        parts = (denoised / vae.config.scaling_factor).split(DECODED)
        decoded = torch.cat([vae.decode(part, return_dict=False)[0].float() for part in parts])
        finite.check(decoded, "the decoder (vae)", names, precision)
        return self.pipeline.image_processor.postprocess(decoded, output_type="pil")

    def draw(self, rows: Sequence[dict], key: tuple) -> list:
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
                    rows[i] |= self.method.start.choose(rows[i], key, attempt, self.training)
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
        cause, remedy = self.method.start.refused(row, draws, self.training) or self.method.guide.refused(row)
        return (
            f"the safety checker refused {draws} draws {cause} of the class {row['class']}; "
            f"{remedy}, or raise `generate.max_replacements`"
        )
