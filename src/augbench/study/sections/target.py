"""The target data: where it lies and how it is split."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from augbench.study.readers import READERS, Reader
from augbench.study.sections.base import Count, RowOf, Section, Share

TRAIN = 0.1  # share of a class to train on: the paper's 10% of ImageNet
VALIDATION = 0.1
VALIDATION_SHOTS = 4  # validation images of a class at most, beside few training images (CoOp, Zhou et al. 2022)


class Target(Section):
    reader: Annotated[Reader, RowOf(READERS, "reader")] = Field(
        description="how its images lie: " + "; ".join(f"{name}: {row.meaning}" for name, row in READERS.items())
    )
    path: str | None = Field(None, description="the folder, or the list")
    folders: Literal["splits", "classes"] | None = Field(
        None,
        description="for the reader folder: what the top folders are; null: decided by their names, see "
        "docs/inputs.md; for huggingface, splits leaves out the files that are named like none",
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
    train: Share = Field(TRAIN, description="share of a class's training images that make the small training set")
    shots: Count | None = Field(
        None,
        description="instead of a share: exactly so many training images of each class; those of fewer shots are among "
        "those of more, and test images are the same",
    )
    validation: Share | None = Field(
        None,
        description=f"share for the disjoint validation split, where the target has none; null: {VALIDATION} or, with "
        f"`shots`, as many images of a class as shots, at most {VALIDATION_SHOTS}",
    )
    test: Share = Field(0.1, description="share for the test split, where the target has none")

    fill_to: Literal["largest"] | Count | None = Field(
        None,
        description="top classes up: add to each what it lacks of so many training images, or of the largest class's, "
        "in place of as many as it has; a ratio is then the share of what is lacking",
    )

    @property
    def validation_shots(self) -> int:
        """Validation images of a class, where no share of its images is set aside for them."""
        return min(self.shots or 0, VALIDATION_SHOTS)

    @model_validator(mode="before")
    @classmethod
    def _shared(cls, values):
        has_none = isinstance(values, dict) and not values.get("shots") and values.get("validation") is None
        return values | {"validation": VALIDATION} if has_none else values

    @model_validator(mode="after")
    def _one_size(self):
        if self.shots and self.train != TRAIN:
            raise ValueError("shots says how many images of a class are trained on: leave out `train`")
        return self
