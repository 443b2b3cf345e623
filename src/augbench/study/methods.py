"""The method table: what a row may say."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_validator

from augbench.core import package_data
from augbench.study.augments import AUGMENTS, Augment
from augbench.study.matches import MATCHES, Match
from augbench.study.parts import PARTS, PROMPT, TRAINED_READING, Guide, Part
from augbench.study.prompts import TEMPLATES, is_prompt_file, template_file, uses_pseudo_word
from augbench.study.queries import Query
from augbench.study.recipes import Mix, Recipe
from augbench.study.sections.base import Count, Name, RowOf, Section, did_you_mean
from augbench.study.sections.diffusion import Generate
from augbench.study.sections.filter import Filter
from augbench.study.starts import STARTS, Start

ROUNDING = 1e-5  # by which the shares of a union may miss 1: thirds
# Keys in place of the study's own.
GENERATION = ("strength", "variations", "guidance", "steps", "negative_prompt", "backbone")


class Method(Section):
    """A row of the method table (paper, Figure 2B)."""

    title: str = Field(description="name in tables and figures")
    family: str = Field(
        description="group in Table 1 and colour in figures: baseline, unconditional, prompting, fine-tuning, "
        "retrieval as in the paper, or a name of your own"
    )
    conditioning: str | None = Field(
        None,
        description="file of prompt templates: NAME of your resources/templates/NAME.txt, or one of augbench's own "
        "(clip_prompts, simple_prompt, ...); or a path FILE.json with prompts of each class, {CLASS: [PROMPT, ...]}; "
        "null: the empty prompt, no guidance",
    )
    templates: Literal["random", "equal"] = Field(
        "random", description="draw templates at random with replacement, or each equally often"
    )
    start: Annotated[Start, RowOf(STARTS, "start")] = Field(
        description="where an added image comes from: "
        + "; ".join(f"{name}, {row.meaning}" for name, row in STARTS.items())
    )
    of: dict[Name, Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None, description="methods whose images a union adds, each with its share, e.g. {retrieval: 0.5, mine: 0.5}"
    )
    trained: list[Annotated[Part, RowOf(PARTS, "part")]] = Field(
        [],
        description="what is fine-tuned on the target: "
        + "; ".join(f"{name}, {row.meaning}" for name, row in PARTS.items()),
    )
    per_class: bool = Field(
        False, description="adapters are trained for each class by itself, on its images alone (DataDream)"
    )
    clusters: Count = Field(1, description="conditionings per class, one for each k-means cluster")
    strength: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="share of the schedule that a start image is noised to; null: the study's `noise_share`"
    )
    variations: Count | None = Field(
        None, description="images generated from each training image; null: the study's `times`"
    )
    guidance: float | None = Field(None, description="classifier-free guidance scale; null: the study's")
    steps: Count | None = Field(None, description="denoising steps; null: the study's")
    negative_prompt: str | None = Field(None, description="what guidance leads away from; null: the study's")
    backbone: str | None = Field(
        None, description="which of the study's `backbones` generates its images; null: the study's `backbone`"
    )
    query: Query = Field(
        "text",
        validate_default=True,
        description="what retrieval searches for: text, the prompts; text_and_images, the mean of prompts and training "
        "images; or weights of each",
    )
    diversity: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="weight of diversity among retrieved images (maximal marginal relevance); 0: similarity alone",
    )
    match: Annotated[Match, RowOf(MATCHES, "match")] = Field(
        "clip",
        validate_default=True,
        description="which of the pool's images retrieval considers: "
        + "; ".join(f"{name}, {row.meaning}" for name, row in MATCHES.items()),
    )
    candidates: list[Annotated[str, Field(pattern=r"^(best_train|best_validation|epoch-[1-9][0-9]*)$")]] = Field(
        ["best_train", "best_validation", "epoch-1", "epoch-2", "epoch-3"],
        min_length=1,
        description="checkpoints of a fine-tuning, of which the one with the best validation accuracy is used",
    )
    augment: Annotated[Augment, RowOf(AUGMENTS, "augment")] | None = Field(
        None,
        description="what classifiers do to training images beyond crops and flips: "
        + "; ".join(f"{name}, {row.meaning}" for name, row in AUGMENTS.items())
        + "; null: nothing",
    )
    mix: Mix | None = Field(
        None, description="the part of added images in training; null: they are further training images like all"
    )
    filter: Filter | None = Field(
        None,
        description="which of its images are good enough, by score; a row that differs from another one of the study "
        "in title, family, filter, augment and mix alone takes that one's images",
    )

    @classmethod
    def from_row(cls, row: Mapping) -> "Method":
        """The method of a job's parameters: of title and family, on which no image depends, the job knows nothing."""
        known = {key: value for key, value in row.items() if key in cls.model_fields}
        return cls(**({"title": "", "family": ""} | known))

    def generation(self, section: Generate) -> Generate:
        """The study's section ``generate`` as it holds for this method."""
        own = {
            "noise_share": self.strength,
            "guidance": self.guidance,
            "steps": self.steps,
            "negative_prompt": self.negative_prompt,
            "times": self.variations,
        }
        own = {key: value for key, value in own.items() if value is not None}
        return section.model_copy(update=own | ({"images_per_class": None} if self.variations else {}))

    @property
    def shares(self) -> dict[str, Fraction]:
        """The methods that a union names, and the share of each; empty for others."""
        return {name: Fraction(str(share)) for name, share in (self.of or {}).items()}

    @property
    def guide(self) -> Guide:
        """What guides the denoiser: the trained part that does, or else the prompt."""
        reading = TRAINED_READING if any(part.trains_encoder for part in self.trained) else PROMPT
        return next((part for part in self.trained if isinstance(part, Guide)), reading)

    @property
    def recipe(self) -> Recipe:
        """How classifiers are trained on the method's images."""
        return Recipe(augment=self.augment, mix=self.mix)

    @property
    def is_target_alone(self) -> bool:
        """Whether it is the target data as they are, with which the others are compared."""
        return not self.start.adds_images and self.augment is None

    @property
    def reference_line(self) -> str | None:
        """How bar charts draw its accuracy across all methods."""
        return None if self.augment or self.mix else self.start.reference_line

    @model_validator(mode="after")
    def _fits(self):
        if self.start.needs_conditioning and self.conditioning is None:
            raise ValueError(f"start: {self.start.name} needs a conditioning, e.g. `conditioning: simple_prompt`")
        if self.conditioning and not template_file(self.conditioning).is_file():
            if is_prompt_file(self.conditioning):
                raise ValueError(f"there is no file {self.conditioning}; it holds prompts, {{CLASS: [PROMPT, ...]}}")
            known = package_data.stems(TEMPLATES)
            raise ValueError(
                f"there is no {package_data.OWN}/{TEMPLATES}/{self.conditioning}.txt"
                f"{did_you_mean(self.conditioning, known)}"
                f" (known: {', '.join(known)})"
            )
        own = not self.query.is_texts_alone or self.diversity or self.match.reads_captions
        if own and not self.start.is_retrieved:
            retrieving = _names(STARTS, lambda start: start.is_retrieved)
            raise ValueError(
                f"start: {self.start.name} does not use query, diversity and match; methods that retrieve "
                f"have `start: {retrieving}`"
            )
        if self.diversity and not self.match.by_similarity:
            raise ValueError(
                f"match: {self.match.name} goes without diversity, which weighs similarities; write `match: both`"
            )
        if self.filter and not self.start.adds_images:
            raise ValueError(f"start: {self.start.name} adds no images, so there are none to filter")
        if self.mix and not self.start.adds_images:
            raise ValueError(f"start: {self.start.name} adds no images that could be mixed in: leave out `mix`")
        self._check_generation()
        self._check_trained()
        self._check_union()
        return self

    def _check_union(self) -> None:
        """That a union names its methods and their shares, and no other method does. Raises ValueError."""
        if self.of is None and not self.start.is_union:
            return
        if not self.start.is_union:
            unions = _names(STARTS, lambda start: start.is_union)
            raise ValueError(f"start: {self.start.name} goes without of; a union of methods has `start: {unions}`")
        if not self.of:
            raise ValueError(f"start: {self.start.name} needs of, e.g. `of: {{retrieval: 0.5, clip_prompts: 0.5}}`")
        total = float(sum(self.shares.values()))
        if abs(total - 1) > ROUNDING:
            raise ValueError(f"the shares of a union sum to 1; those of `of` sum to {total:g}")
        if self.conditioning is not None:
            raise ValueError(f"start: {self.start.name} goes without conditioning; its methods have their own")
        if self.filter is not None:
            raise ValueError(f"start: {self.start.name} goes without filter; filter the images of its methods")

    def _check_generation(self) -> None:
        """That what is said of generation belongs to the method's start. Raises ValueError."""
        said = [name for name in GENERATION if getattr(self, name) is not None]
        if said and not self.start.is_generated:
            generating = _names(STARTS, lambda start: start.is_generated)
            raise ValueError(
                f"start: {self.start.name} goes without {said[0]}; a method that generates has `start: {generating}`"
            )
        of_images = [name for name in ("strength", "variations") if name in said]
        if of_images and not self.start.begins_from_images:
            varying = _names(STARTS, lambda start: start.begins_from_images)
            raise ValueError(
                f"start: {self.start.name} goes without {of_images[0]}; a method that varies training images has "
                f"`start: {varying}`"
            )

    def _check_trained(self) -> None:
        """That the trained parts go with each other and with all else. Raises ValueError."""
        if self.trained and not self.start.can_be_trained:
            trainable = _names(STARTS, lambda start: start.can_be_trained)
            raise ValueError(
                f"start: {self.start.name} does not use `trained`; fine-tuned methods have `start: {trainable}`"
            )
        if self.trained and self.conditioning and is_prompt_file(self.conditioning):
            raise ValueError("trained needs templates, e.g. `conditioning: simple_prompt`, not prompts for each class")
        if self.trained and self.conditioning is None:
            raise ValueError("trained needs a conditioning, e.g. `conditioning: simple_prompt`")
        if len(set(self.trained)) < len(self.trained):
            raise ValueError("trained names a part twice")
        guiding = [part.name for part in self.trained if part.guides]
        if len(guiding) > 1:
            raise ValueError(f"trained takes either {' or '.join(guiding)}, or neither")
        denoising = [part.name for part in self.trained if part.trains_denoiser]
        if len(denoising) > 1:
            raise ValueError(f"trained takes either {' or '.join(denoising)}: both change the denoiser")
        if self.per_class and not (self.trained and all(part.is_adapter for part in self.trained)):
            adapters = _names(PARTS, lambda part: part.is_adapter)
            raise ValueError(f"per_class goes with adapters and nothing else that is trained: `trained: [{adapters}]`")
        unread = [part.name for part in self.trained if not part.keeps_prompts]
        reading = [part.name for part in self.trained if part.trains_encoder]
        if unread and reading:
            raise ValueError(f"trained takes either {unread[0]} or {reading[0]}: in place of the one no prompt is read")
        if self.clusters > 1 and not any(part.has_clusters for part in self.trained):
            clustered = _names(PARTS, lambda part: part.has_clusters)
            raise ValueError(f"clusters needs `trained: [{clustered}]`: nothing else that is learned has clusters")
        reads_word = any(part.uses_pseudo_word for part in self.trained)
        if self.conditioning and uses_pseudo_word(self.conditioning) != reads_word:
            words = _names(PARTS, lambda part: part.uses_pseudo_word)
            raise ValueError(
                f"templates hold {{p}}, the learned pseudo-word, with `trained: [{words}]` and only with it; see "
                f"{template_file(self.conditioning)}"
            )


def _names(registry: Mapping, fits: Callable) -> str:
    """The names of the rows of a registry that fit, for a sentence."""
    return " or ".join(name for name, row in registry.items() if fits(row))
