"""What is measured of each image before it is added, and by which score images can be filtered: the table of scores.

Of every score more is better: the more an image shows its class, or the less it repeats another image. A score that a
study lacks the model for is empty.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A column of a table of scores. ``nearest``: the image that it compares with has a column of its own."""

    name: str
    meaning: str
    needs_clip: bool = False
    needs_embedding: bool = False  # the study's CLIP, or the audit's second detector
    needs_classifier: bool = False  # that which measures the domain gap
    nearest: bool = False

    @property
    def id_column(self) -> str:
        return f"{self.name}_id"


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score("clip", "CLIP similarity to the prompt of its class, `A photo of NAME`", needs_clip=True),
        Score("clip_images", "CLIP similarity to the mean of its class's training images", needs_clip=True),
        Score(
            "confidence",
            "probability of its class in the eyes of the classifier that measures the domain gap",
            needs_classifier=True,
        ),
        Score(
            "train_bits", "bits in which its perceptual hash differs from the nearest training image's", nearest=True
        ),
        Score("held_out_bits", "the same, of the nearest image of the validation and test splits", nearest=True),
        Score(
            "train_distance",
            "cosine distance of its embedding (of the audit's detector, or else of CLIP) to the nearest training image",
            needs_embedding=True,
            nearest=True,
        ),
        Score(
            "held_out_distance",
            "the same, to the nearest image of the validation and test splits",
            needs_embedding=True,
            nearest=True,
        ),
        Score("novelty", "bits between its hash and the nearest earlier image's of its class; 64 without one"),
    )
}
PROMPT = "simple_prompt"  # templates that make the prompt of a class
COLUMNS = ["image_id", "class", "hash", *SCORES, *(score.id_column for score in SCORES.values() if score.nearest)]
