"""The model that fine-tuning works on: a pipeline's denoiser and text encoder, of which only some parts are trained."""

from collections.abc import Mapping, Sequence

import torch

from augbench.diffusion.text_encodings import TextEncodings
from augbench.study.methods import Method
from augbench.study.parts import PARTS
from augbench.study.sections.diffusion import Finetune


class TrainedModel(torch.nn.Module):
    """Predicts from noisy latents; ``groups`` maps each trained part to its parameters, all else is frozen.

    ``forward(noisy, timesteps, guides)`` takes the guides that the method's guide makes for training images
    (:meth:`augbench.study.parts.Guide.of_images`).
    """

    def __init__(self, pipeline, classes: Sequence[Mapping], method: Method, settings: Finetune):
        super().__init__()
        self.unet, self.text_encoder, self.tokenizer = pipeline.unet, pipeline.text_encoder, pipeline.tokenizer
        self.encodings = TextEncodings(self.tokenizer, self.text_encoder)
        self.guide = method.guide
        self.requires_grad_(False)
        trained = [part for part in PARTS.values() if part in method.trained]  # in one order, however they are listed
        self.groups = {part: part.attach(self, classes, method, getattr(settings, part.name, None)) for part in trained}
        if settings.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def forward(self, noisy, timesteps, guides):
        dtype = self.unet.dtype
        guides = self.guide.encode(self, guides).to(dtype)
        return self.unet(noisy.to(dtype), timesteps, guides, return_dict=False)[0]

    def candidate(self) -> dict:
        """What was trained, to be written at once: on the CPU it is the model's own memory."""
        return {name: value.detach().cpu() for part in self.groups for name, value in part.tensors(self).items()}

    def restore(self, candidate: Mapping) -> None:
        """Go on from what :meth:`candidate` gave."""
        for part in self.groups:
            part.restore(self, candidate)
