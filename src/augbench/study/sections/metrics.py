"""Metrics of sets of images."""

from pydantic import Field, field_validator

from augbench.study import encoders
from augbench.study.sections.base import Section


class Metrics(Section):
    """KID, precision, recall, density, coverage and Vendi of what methods add, against the test images."""

    encoder: str = Field(
        "classifier",
        description="whose features they compare: "
        + "; ".join(f"{row.example}, {row.meaning}" for row in encoders.ENCODERS.values()),
    )

    @property
    def row(self) -> encoders.Encoder:
        return encoders.find(self.encoder)[0]

    @field_validator("encoder")
    @classmethod
    def _known(cls, value):
        encoders.find(value)
        return value
