"""The method table: what a row may say."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from augbench.core import package_data
from augbench.study.prompts import TEMPLATES, template_file, uses_pseudo_word
from augbench.study.sections.base import Count, Section, did_you_mean, one_of
from augbench.study.starts import STARTS, Start

PARTS = ("conditioning", "pseudo_word", "unet")  # of the diffusion model, that a method may train


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
        "(clip_prompts, simple_prompt, ...); null: the empty prompt, no guidance",
    )
    templates: Literal["random", "equal"] = Field(
        "random", description="draw templates at random with replacement, or each equally often"
    )
    start: one_of(Start, STARTS, "start") = Field(
        description="where an added image comes from: "
        + "; ".join(f"{name}, {row.meaning}" for name, row in STARTS.items())
    )
    trained: list[Literal[PARTS]] = Field([], description="what is fine-tuned on the target")
    clusters: Count = Field(1, description="conditionings per class, one for each k-means cluster")
    query: Literal["text", "text_and_images"] = Field(
        "text", description="what retrieval searches for: the prompts, or the mean of prompts and training images"
    )
    diversity: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="of retrieved images: weight of unlikeness in maximal marginal relevance; 0: the most similar"
    )
    candidates: list[Annotated[str, Field(pattern=r"^(best_train|best_validation|epoch-[1-9][0-9]*)$")]] = Field(
        ["best_train", "best_validation", "epoch-1", "epoch-2", "epoch-3"],
        min_length=1,
        description="states of a fine-tuning of which validation accuracy chooses",
    )

    @model_validator(mode="after")
    def _fits(self):
        if self.start.needs_conditioning and self.conditioning is None:
            raise ValueError(f"start: {self.start.name} needs a conditioning, e.g. `conditioning: simple_prompt`")
        if self.conditioning and not template_file(self.conditioning).is_file():
            known = package_data.stems(TEMPLATES)
            raise ValueError(
                f"there is no {package_data.OWN}/{TEMPLATES}/{self.conditioning}.txt"
                f"{did_you_mean(self.conditioning, known)}"
                f" (known: {', '.join(known)})"
            )
        if not self.start.is_retrieved and (self.query != "text" or self.diversity):
            raise ValueError(f"start: {self.start.name} goes without query and diversity; retrieval has `start: pool`")
        if self.trained and not self.start.can_be_trained:
            raise ValueError(f"start: {self.start.name} goes without `trained`; fine-tuned methods have `start: noise`")
        if len(set(self.trained)) < len(self.trained):
            raise ValueError("trained names a part twice")
        if {"conditioning", "pseudo_word"} <= set(self.trained):
            raise ValueError("trained takes either conditioning or pseudo_word, or neither")
        if self.clusters > 1 and "conditioning" not in self.trained:
            raise ValueError("clusters needs `trained: [conditioning]`: only learned conditionings have clusters")
        if self.conditioning and uses_pseudo_word(self.conditioning) != ("pseudo_word" in self.trained):
            raise ValueError(
                f"templates with {{p}}, the learned pseudo-word, go with `trained: [pseudo_word]` and no others do;"
                f" see {template_file(self.conditioning)}"
            )
        return self
