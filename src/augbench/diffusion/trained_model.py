"""The model that fine-tuning works on: a pipeline's denoiser and text encoder, of which only some parts are trained."""

import contextlib
import functools
from collections.abc import Mapping, Sequence

import torch

from augbench.diffusion.learned_rows import LearnedRows
from augbench.diffusion.text_encodings import FamilyEncodings, TextEncodings
from augbench.models import families
from augbench.study.methods import Method
from augbench.study.parts import PARTS, Part
from augbench.study.sections.diffusion import Finetune


class TrainedModel(torch.nn.Module):
    """Predicts from noisy latents with ``unet``, which of other families is a transformer; ``groups`` maps each trained
    part to its parameters, all else is frozen.

    ``forward(noisy, timesteps, guides)`` takes the guides that the method's guide makes for training images
    (:meth:`augbench.study.parts.Guide.of_images`). Where a part trains a table of rows, :meth:`begin` says beforehand
    which of them a batch reads.
    """

    def __init__(self, pipeline, classes: Sequence[Mapping], method: Method, settings: Finetune, seed: int = 0):
        super().__init__()
        self.seed, self.family = seed, families.of_class(type(pipeline).__name__, "the backbone")
        self.denoiser_name = self.family.denoiser
        self.pixels_per_latent = pipeline.vae_scale_factor
        self.unet, self.text_encoder = self.family.parts_of(pipeline)
        self.encoders, self.tokenizers = families.encoders_of(pipeline), families.tokenizers_of(pipeline)
        self.tokenize = functools.partial(self.family.tokenize, pipeline)
        if self.family.has_own_sampler:
            self.encodings = TextEncodings(pipeline.tokenizer, self.text_encoder)
        else:
            self.encodings = FamilyEncodings(pipeline, self.family, self.text_encoder)
        self.guide = method.guide
        self.adapter_scales: dict[Part, float] = {}  # alpha / rank of each part that is an adapter
        self.requires_grad_(False)
        trained = [part for part in PARTS.values() if part in method.trained]  # in one order, however they are listed
        self.groups = {part: part.attach(self, classes, method, getattr(settings, part.name, None)) for part in trained}
        # A table, by the part's name, is all that such a part trains.
        self.tables = {part.name: group[0] for part, group in self.groups.items() if isinstance(group[0], LearnedRows)}
        self.unet_is_frozen = not any(weights.requires_grad for weights in self.unet.parameters())

    def rows(self, start, repeats: int = 1) -> LearnedRows:
        """A trained table for a part to attach, see :class:`LearnedRows`."""
        return LearnedRows(start, repeats)

    def cast_frozen(self, dtype: torch.dtype) -> None:
        """Convert what is not trained; of a denoiser whose own weights are, nothing."""
        modules = [self.text_encoder]
        if not any(part.needs_full_precision for part in self.groups):
            modules.append(self.unet)
        for module in modules:
            for weights in module.parameters():
                if not weights.requires_grad:
                    weights.data = weights.data.to(dtype)

    def read(self, tokens):
        """Encodings (n, rows, width) of prompts' tokens, through which gradients flow."""
        return self.family.read(self.encoders.values(), tokens)

    def forward(self, noisy, timesteps, guides):
        dtype = self.unet.dtype
        guides = self.guide.encode(self, guides).to(dtype)
        # All of a frozen denoiser is in half precision already: autocast would compute its norms in float32, for a
        # quarter more time and memory.
        is_plain = self.unet_is_frozen
        with torch.autocast(noisy.device.type, enabled=False) if is_plain else contextlib.nullcontext():
            pixels = noisy.shape[-1] * self.pixels_per_latent
            return self.family.predict(self.unet, noisy.to(dtype), timesteps, guides, pixels)

    def begin(self, guides) -> None:
        """Let tables be read at these guides, and no others, until :meth:`end`."""
        for table in self.tables.values():
            table.begin(guides)

    def end(self) -> None:
        for table in self.tables.values():
            table.end()

    def candidate(self) -> dict:
        """What was trained, to be written at once: it is the model's own memory. All processes call it, and the first
        gets the whole."""
        return {name: value.detach() for part in self.groups for name, value in part.candidate(self).items()}

    def state(self) -> dict:
        """What :meth:`restore` goes on from: what was trained, of tables with all that their training needs."""
        tensors = {}
        for part in self.groups:
            table = self.tables.get(part.name)
            own = {f"{part.name}.{name}": value for name, value in table.state().items()} if table else None
            tensors |= own or part.tensors(self)
        return tensors

    def restore(self, state: Mapping) -> None:
        for part in self.groups:
            if table := self.tables.get(part.name):
                prefix = f"{part.name}."
                own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
                table.restore(own)
            else:
                part.restore(self, state)
