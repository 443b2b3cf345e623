"""The downstream classifier."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from augbench.study.adaptations import ADAPTATIONS, Adaptation
from augbench.study.architectures import LIBRARIES, SIDE, Library, library_of
from augbench.study.budgets import BUDGETS, Budget
from augbench.study.optimizers import OPTIMIZERS, Optimizer
from augbench.study.schedules import SCHEDULES, Schedule
from augbench.study.sections.base import Count, Positive, RowOf, Section, Share

MAIN = "main"  # what the study's own classifier is called beside further ones
EARLY = " Early stopping on validation accuracy ends the training of every method."


def _meanings(registry) -> str:
    return "; ".join(f"{name}, {row.meaning}" for name, row in registry.items())


class Classifier(Section):
    model: str = Field("resnet50", description="; ".join(f"{row.example}: {row.meaning}" for row in LIBRARIES))
    weights: Literal["none", "pretrained"] = Field(
        "none", description="with which training begins: random ones (the paper's), or pretrained ones of timm"
    )
    train: Annotated[Adaptation, RowOf(ADAPTATIONS, "train")] = Field(
        "all", validate_default=True, description="what is trained: " + _meanings(ADAPTATIONS)
    )
    image_size: Count | None = Field(None, description=f"pixels; null: {SIDE}, or what a model of timm says")
    batch_size: Count = Field(256, description="images per step")
    optimizer: Annotated[Optimizer, RowOf(OPTIMIZERS, "optimizer")] = Field(
        "sgd", validate_default=True, description=_meanings(OPTIMIZERS)
    )
    learning_rate: Positive = Field(0.1, description="initial")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="of the optimiser")
    schedule: Annotated[Schedule, RowOf(SCHEDULES, "schedule")] | None = Field(
        None,
        description="of the learning rate: "
        + _meanings(SCHEDULES)
        + "; null: "
        + ", ".join(f"{row.schedules[0]} with `budget: {name}`" for name, row in BUDGETS.items()),
    )
    warmup: int = Field(0, ge=0, description="steps over which the learning rate rises linearly")
    layer_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="factor of the learning rate from one layer of a network of timm to the one before it"
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay of a moving average of the weights, e.g. 0.999, which is then scored in their place"
    )
    budget: Annotated[Budget, RowOf(BUDGETS, "budget")] = Field(
        "epochs",
        validate_default=True,
        description="how long all methods are trained: " + _meanings(BUDGETS),
    )
    steps: Count | None = Field(None, description="number of optimiser steps of `budget: steps`")
    max_epochs: Count = Field(270, description="largest number of epochs")
    patience: Count = Field(10, description="epochs without better validation accuracy: learning rate / 10")
    stop_after: Count = Field(20, description="epochs without better validation accuracy: stop")
    crop_scale: tuple[Annotated[float, Field(gt=0, le=1)], Share] = Field(
        (0.08, 1.0), description="range of random resized crops, share of the area"
    )
    horizontal_flip: bool = Field(True, description="random horizontal flips")
    workers: int | None = Field(
        None,
        ge=0,
        description="data loading processes, of each process; null: up to four, none for images that fit into memory",
    )
    processes: Count = Field(1, description="that share each batch, one per GPU")
    threads: Count = Field(1, description="CPU threads; results depend on it in low bits, so --cores does not set it")

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, values):
        """A library's size stands in the section, where it has one: what depends on the section then sees it."""
        if not isinstance(values, dict) or values.get("image_size") is not None:
            return values
        size = library_of(str(values.get("model", cls.model_fields["model"].default))).default_size
        return values if size is None else values | {"image_size": size}

    @model_validator(mode="after")
    def _fits(self):
        if self.weights != "none" and not self.library.has_weights:
            raise ValueError(
                f"there are no pretrained weights of {self.model} here: name a network of timm, e.g. "
                "`model: timm/resnet50.a1_in1k`, or write `weights: none`"
            )
        self.budget.check(self)
        self.optimizer.check(self)
        self.train.check(self)
        return self

    @property
    def library(self) -> Library:
        return library_of(self.model)

    @property
    def is_pretrained(self) -> bool:
        return self.weights != "none"

    @property
    def rate_schedule(self) -> Schedule:
        """The schedule that is asked for, or else the budget's own."""
        return self.schedule or SCHEDULES[self.budget.schedules[0]]

    @property
    def unit(self) -> str:
        """In which the history of a training counts."""
        return self.train.unit or self.budget.unit

    @property
    def account(self) -> str:
        """For the caption of Table 1: what is equal for all methods."""
        if self.train.account:
            return self.train.account
        return self.budget.account + EARLY * self.rate_schedule.stops_early

    @property
    def encoder(self) -> dict:
        """What features of images depend on, as a section that has all else at its defaults."""
        keys = {"model", "weights", "image_size", "threads"}
        return self.model_dump(include=keys) | {"train": "probe"}

    @property
    def pixels(self) -> int:
        """A side of the images, about, where the model says it."""
        return self.image_size or SIDE
