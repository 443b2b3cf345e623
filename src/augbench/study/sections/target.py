"""The target data: where it lies and how it is split."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from augbench.study.readers import READERS, Reader
from augbench.study.sections.base import RowOf, Section, Share


class Target(Section):
    reader: Annotated[Reader, RowOf(READERS, "reader")] = Field(
        description="how its images lie: " + "; ".join(f"{name}: {row.meaning}" for name, row in READERS.items())
    )
    path: str | None = Field(None, description="the folder, or the list")
    folders: Literal["splits", "classes"] | None = Field(
        None,
        description="for the reader folder: what the top folders are; null: decided by their names, see docs/inputs.md",
    )
    ground_truth: str | None = Field(
        None,
        description="for ImageNet's val without class folders: ILSVRC2012_devkit_t12 or LOC_val_solution.csv",
    )
    classes: str | None = Field(
        None,
        description="CSV with the columns class, lemmas, hypernyms, definition, for all classes or some; the others "
        "are named by WordNet for ImageNet, else by their folders",
    )
    unreadable: Literal["stop", "skip"] = Field("stop", description="what to do with an image that cannot be read")

    @model_validator(mode="after")
    def _where(self):
        if not self.reader.is_built_in and not self.path:
            raise ValueError(f"reader: {self.reader.name} needs a path, e.g. `path: data/birds`")
        return self


class Dataset(Section):
    train: Share = Field(0.1, description="share of a class's training images that make the small training set")
    validation: Share = Field(0.1, description="share for the disjoint validation split, where the target has none")
    test: Share = Field(0.1, description="share for the test split, where the target has none")
