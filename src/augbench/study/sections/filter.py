"""Which of a method's images are good enough to be added."""

from typing import Annotated

from pydantic import Field, model_validator

from augbench.study.scores import SCORES, Score
from augbench.study.sections.base import RowOf, Section, exactly_one


class Filter(Section):
    """A filter by score, of the images of each class, before sets are drawn from them."""

    by: Annotated[Score, RowOf(SCORES, "score")] = Field(
        description="a score, of which more is better: "
        + "; ".join(f"{row.name}, {row.meaning}" for row in SCORES.values())
    )
    keep: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="share of each class's images that is kept, those with the highest scores"
    )
    at_least: float | None = Field(None, description="instead: lowest score that is kept")
    allow_fewer: bool = Field(
        False, description="add what is left of a class where that is less than its ratio wants; false: stop"
    )

    @model_validator(mode="after")
    def _one(self):
        return exactly_one(self, "filter", "keep", "at_least", "filter: {by: clip, keep: 0.7}")
