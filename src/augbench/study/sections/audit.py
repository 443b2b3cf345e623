"""The audit for duplicates."""

from pydantic import Field, field_validator

from augbench.study.sections.base import Count, Name, Section, Share

INSPECTED = 500  # candidate pairs, as in the paper
REFERENCES = ("test", "validation", "more_real", "unused")  # splits that added images are compared with


class Audit(Section):
    """The search for duplicates (paper, section 4.5)."""

    references: dict[Name, str] = Field(
        {}, description="folders of further images to compare with, besides the splits, e.g. {original_test: data/test}"
    )
    inspected: Count = Field(
        INSPECTED,
        description="candidate pairs per reference set that people judge; a random sample where there are more",
    )
    in_full: list[Name] | None = Field(
        None,
        description="reference sets of which people judge all candidate pairs; null: the test split, and further test "
        "sets (`evaluate`)",
    )
    detector: str | None = Field(
        None,
        description="a second detector besides the perceptual hash, which compares embeddings: clip, the study's, or "
        "the file of a TorchScript copy-detection model (a program, so use only files that you trust)",
    )
    threshold: Share = Field(0.9, description="cosine similarity from which on the second detector reports a candidate")
    image_size: Count = Field(288, description="pixels of the images that a TorchScript model takes")

    def references_of(self, start) -> list[str]:
        """The sets that added images are compared with: all splits but that which they come from, and the folders of
        the configuration."""
        return [*(split for split in REFERENCES if split != start.split), *self.references]

    @field_validator("references")
    @classmethod
    def _new(cls, value):
        if taken := set(REFERENCES) & set(value):
            raise ValueError(f"{min(taken)} is a split of the target; give the folder another name")
        return value
