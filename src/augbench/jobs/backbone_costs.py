"""What the jobs of a study's diffusion model cost: its memory, time and sizes, as far as they are known before it is
fetched."""

import functools
import json
from pathlib import Path

from augbench.models import families
from augbench.models.families import Family
from augbench.study.sections.diffusion import Generate, Sampling
from augbench.study.sections.models import Backbone, Clip

SMALL_PROCESS = 3000  # megabytes of a process with a small diffusion model of one's own
UNET_BYTES = 3.44e9  # of Stable Diffusion's denoiser, float32


class BackboneCosts:
    """One backbone of a study; ``clip`` is the study's, whose text encoder a model that is trained here takes."""

    def __init__(self, section: Backbone, clip: Clip | None):
        self.section, self.clip = section, clip

    @functools.cached_property
    def folder(self) -> Path | None:
        """Where it lies, if it is a folder of this machine."""
        folder = Path(str(self.section.model))
        return folder if self.section.model and folder.is_dir() else None

    @functools.cached_property
    def family(self) -> Family:
        """Stable Diffusion's where it is not known before it is fetched."""
        model = self.section.model
        return (families.of_name(model) if model else None) or families.DEFAULT

    @property
    def fetched_bytes(self) -> float:
        return 0 if self.folder else self.family.bytes  # linked, not copied

    @property
    def megabytes(self) -> float:
        """Of a process that has it on a GPU, or in its own memory."""
        return SMALL_PROCESS if self.section.train else self.family.megabytes

    def with_defaults(self, settings: Generate) -> Sampling:
        """Settings with the pipeline's own values where they are open."""
        return self.family.with_defaults(settings, self.folder)

    @functools.cached_property
    def latents(self) -> tuple[int, int]:
        """Channels of the latents, and pixels of an image that one of theirs stands for, a side."""
        train = self.section.train
        if train:
            return train.latent_channels, 2 ** (len(train.vae_channels) - 1)
        if self.folder is None:
            return 4, 8
        config = json.loads((self.folder / "vae" / "config.json").read_text())
        return config["latent_channels"], 2 ** (len(config["block_out_channels"]) - 1)

    @functools.cached_property
    def denoiser(self) -> tuple[int, int, float]:
        """Tokens and width of a text encoding, and bytes of the denoiser in half precision."""
        if self.section.train:
            assert self.clip and self.clip.train
            return self.section.train.text_tokens, self.clip.train.width, 0
        tokens, width = self.family.encoding
        if self.folder is None:
            return tokens, width, UNET_BYTES / 2
        weights = sum(file.stat().st_size for file in (self.folder / self.family.denoiser).glob("*.safetensors"))
        if self.family.has_own_sampler:
            config = json.loads((self.folder / "text_encoder" / "config.json").read_text())
            width = config.get("hidden_size", width)
        return tokens, width, weights / 2
