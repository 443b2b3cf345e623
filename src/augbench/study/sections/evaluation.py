"""Further test sets, which the trained classifiers are scored on."""

from typing import Annotated

from pydantic import Field, field_validator

from augbench.study.namings import NAMINGS, Naming
from augbench.study.readers import READERS, Layout, Reader
from augbench.study.sections.base import RowOf, Section


class EvaluationSet(Section):
    """A further test set. It may lack classes of the target, but has no others."""

    reader: Annotated[Reader, RowOf(READERS, "reader")] = Field(
        "folder",
        validate_default=True,
        description="how its images lie, as of a target; where they have splits, those of the test split are taken",
    )
    path: str = Field(description="the folder, or the list")
    classes: Annotated[Naming, RowOf(NAMINGS, "naming")] = Field(
        "name",
        validate_default=True,
        description="what its classes are called: "
        + "; ".join(f"{name}, {row.meaning}" for name, row in NAMINGS.items()),
    )

    @field_validator("reader")
    @classmethod
    def _elsewhere(cls, value):
        if value.is_built_in:
            raise ValueError(f"{value.name} is made by a study; a test set has `reader: folder` or `reader: list`")
        return value

    # What readers ask of a target besides.
    @property
    def folders(self) -> None:
        return None

    @property
    def ground_truth(self) -> None:
        return None

    def layout(self) -> Layout:
        """Where its images lie. Raises ValueError with one sentence when they do not lie as its reader says."""
        return self.reader.layout(self)

    def images_of(self, layout: Layout):
        """The function that lists the images of a class: of the test split where there is one, else all."""
        return layout.own.get("test", layout.train)
