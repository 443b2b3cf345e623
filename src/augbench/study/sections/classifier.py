"""The downstream classifier."""

from typing import Annotated

from pydantic import Field, model_validator

from augbench.study.budgets import BUDGETS, Budget
from augbench.study.sections.base import Count, Positive, RowOf, Section, Share


class Classifier(Section):
    model: str = Field("resnet50", description="any torchvision classification model, or small_cnn")
    image_size: Count = Field(224, description="pixels")
    batch_size: Count = Field(256, description="images per step")
    learning_rate: Positive = Field(0.1, description="initial, SGD with momentum 0.9 and weight decay 1e-4")
    budget: Annotated[Budget, RowOf(BUDGETS, "budget")] = Field(
        "epochs",
        validate_default=True,
        description="how long all methods are trained: "
        + "; ".join(f"{name}, {row.meaning}" for name, row in BUDGETS.items()),
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

    @model_validator(mode="after")
    def _fits_budget(self):
        self.budget.check(self)
        return self
