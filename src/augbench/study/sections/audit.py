"""The audit for duplicates."""

from pydantic import Field, field_validator, model_validator

from augbench.study.sections.base import Count, Name, Section, Share, did_you_mean

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
    in_full: list[Name] = Field(["test"], description="reference sets of which people judge all candidate pairs")
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

    @model_validator(mode="after")
    def _known(self):
        known = [*REFERENCES, *self.references]
        for name in self.in_full:
            if name not in known:
                meant = did_you_mean(name, known)
                raise ValueError(f"in_full: there is no reference set {name!r}{meant} (known: {', '.join(known)})")
        return self
