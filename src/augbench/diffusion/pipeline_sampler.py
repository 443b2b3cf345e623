"""The sampler of all families but Stable Diffusion's: a pipeline's own call turns the rows of a batch into pictures."""

import functools
import inspect
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augbench.core import finite
from augbench.core.gpu_memory import Portions
from augbench.core.seeds import torch_generator
from augbench.diffusion.drawer import SMALLER, Drawer, as_pictures, names_of
from augbench.models import families
from augbench.models.backbones import AS_IT_COMES, load_pipeline
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Generate
from augbench.study.sections.models import Loading

# Where a pipeline knows these, pictures are drawn at the size that is asked for, and prompts are read as they are: they
# would be cleaned where Beautiful Soup is installed, and left alone elsewhere.
EXACT = {"use_resolution_binning": False, "clean_caption": False}


class PipelineSampler(Drawer):
    """A diffusers pipeline in memory. Prompts of a batch are drawn together, each image by a generator of its own seed,
    from which noise between steps comes as well."""

    def __init__(
        self,
        pipeline_folder: str | Path,
        method: Method,
        settings: Generate,
        safety: str | Path | None = None,
        loading: Loading = AS_IT_COMES,
    ):
        super().__init__(method, settings, safety)
        self.family = families.of_folder(pipeline_folder)
        families.check_method(self.family, method, "this method")
        self.family.check_settings(settings)
        self.drawn_at_a_time = Portions(settings.batch_size, "images to draw (`generate.batch_size`)", SMALLER)
        self.pipeline: Any = load_pipeline(pipeline_folder, loading)
        self.pipeline.set_progress_bar_config(disable=True)
        known = inspect.signature(self.pipeline.__call__).parameters
        self.exact = {name: value for name, value in EXACT.items() if name in known}

    def denoise(self, rows: Sequence[Mapping]) -> list:
        return list(itertools.chain.from_iterable(self.drawn_at_a_time(self._drawn, rows)))

    def _drawn(self, rows: Sequence[Mapping]) -> list:
        """The pictures of rows. Raises RuntimeError naming the images for which the model gives no numbers."""
        colours = self.pipeline(
            **self._guides(rows),
            generator=[torch_generator(row["seed"]) for row in rows],
            output_type="pt",
            **self.family.call(self.settings, len(rows)),
            **self.exact,
        ).images
        hint = "its weights may be damaged, or its numbers too large: write `dtype: float32` beside the model's name"
        finite.check(colours, f"the diffusion model ({self.family.name})", names_of(rows, self.name), hint)
        return as_pictures(colours.float())

    def _guides(self, rows: Sequence[Mapping]) -> dict[str, Any]:
        """What the pipeline is called with: prompts, which it reads itself, or what was learned in their place."""
        if not any(part.guides for part in self.method.trained):
            return {"prompt": [row["prompt"] for row in rows]}
        encode = functools.partial(self.family.encode, self.pipeline)
        learned = self.method.guide.encodings(rows, encode, self.candidate)
        denoiser = getattr(self.pipeline, self.family.denoiser)
        return self.family.guided(self.pipeline, learned.to(denoiser.device, denoiser.dtype))
