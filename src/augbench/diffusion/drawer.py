"""What all samplers have in common: draws that the safety checker refuses are repeated, image by image."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import PIL.Image
import torch

from augbench.core.seeds import derive
from augbench.diffusion.candidates import of_class
from augbench.diffusion.latents import StartImages
from augbench.models.backbones import safety_checker
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Generate
from augbench.study.starts import Generated

SMALLER = "write a smaller `generate: {image_size: ...}`, or take a GPU with more memory"


class Drawer:
    """A diffusion model in memory, ready to turn batches of rows into pictures; a class below says how.

    ``safety`` is the folder of the safety checker, if there is one.
    """

    training: StartImages | None = None  # of methods that begin from training images
    pipeline: Any
    candidate: Mapping = {}
    name = "base"  # of the candidate, for messages
    loaded: str | None = None  # the class whose part of the candidate is loaded, where each has its own

    def __init__(self, method: Method, settings: Generate, safety: str | Path | None):
        torch.set_num_threads(settings.threads)
        self.method, self.settings = method, settings
        self.checker = safety_checker(safety)

    @property
    def start(self) -> Generated:
        return cast(Generated, self.method.start)  # methods with other starts have no sampler

    def use(self, candidate: Mapping, name: str = "base") -> "Drawer":
        """Take a fine-tuning's result (:mod:`augbench.study.parts`) in place of another of the same method; ``name``
        is for messages."""
        self.candidate, self.name, self.loaded = candidate, name, None
        if not self.method.per_class:
            self.load(candidate)
        return self

    def load(self, candidate: Mapping) -> None:
        """Load what was fine-tuned into the model."""
        for part in self.method.trained if candidate else []:
            part.load(self.pipeline, candidate)

    def denoise_by_class(self, rows: Sequence[Mapping]) -> list:
        """The pictures of a batch of rows, each by the model of its class where each has its own."""
        if not self.method.per_class:
            return self.denoise(rows)
        pictures = []
        for key, own in itertools.groupby(rows, lambda row: row["class"]):
            if self.loaded != key:
                self.load(of_class(self.candidate, key))
                self.loaded = key
            pictures += self.denoise(list(own))
        return pictures

    def denoise(self, rows: Sequence[Mapping]) -> list:
        """The pictures of a batch of rows, as RGB ``PIL.Image``; rows have ``seed`` and what their start notes."""
        raise NotImplementedError

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
                drawn = self.denoise_by_class([rows[i] for i in waiting])
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


def names_of(rows: Sequence[Mapping], candidate: str) -> list[str]:
    """What to call the images of rows in messages."""
    return [
        f"image {row['index']} of class {row['class']}, candidate {candidate}, prompt {row['prompt']!r}" for row in rows
    ]


def as_pictures(colours: torch.Tensor) -> list[PIL.Image.Image]:
    """Pictures of tensors (n, 3, height, width) in 0 to 1."""
    # As bytes they leave the GPU in a quarter of the time.
    pixels = colours.mul(255).round().to(torch.uint8)
    return [PIL.Image.fromarray(each) for each in pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()]
