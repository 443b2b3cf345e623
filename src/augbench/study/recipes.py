"""How classifiers are trained on a method's images: what a row of the method table says of it."""

from typing import Annotated

from pydantic import Field, model_validator

from augbench.study.augments import AUGMENTS, Augment
from augbench.study.sections.base import RowOf, Section, exactly_one


class Mix(Section):
    """The part that added images have in training, where it is not that of their number."""

    weight: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="share of the loss that added images carry together, whatever their number (DataDream: 0.2)"
    )
    probability: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="that a training image drawn in an epoch is replaced by a random added one of its class; an epoch "
        "is then as long as that of the target alone (DA-Fusion: 0.5)",
    )

    @model_validator(mode="after")
    def _one(self):
        return exactly_one(self, "mix", "weight", "probability", "mix: {probability: 0.5}")

    def epoch_size(self, real: float, added: float) -> float:
        """Images of an epoch of a set of ``real`` and ``added`` ones."""
        return real + added if self.probability is None else real

    def loss_weights(self, real: int, added: int) -> tuple[float, float] | None:
        """The weights in the loss of one of ``real`` and of one of ``added`` images, 1 on average over a set that has
        both; None where all weigh the same."""
        if self.weight is None or not added:
            return None
        count = real + added
        return (1 - self.weight) * count / real, self.weight * count / added


class Recipe(Section):
    """How a classifier is trained on a method's images, beyond what is equal for all methods."""

    augment: Annotated[Augment, RowOf(AUGMENTS, "augment")] | None = None
    mix: Mix | None = None


PLAIN = Recipe()
