"""How work is cut into jobs."""

from pydantic import Field

from augbench.study.sections.base import Count, Positive, Section


class Jobs(Section):
    """How work is cut into jobs. Results do not depend on it."""

    classes_per_generation: Count = Field(1000, description="classes per generation job")
    runs_per_classifier: Count = Field(5, description="classifier runs per job")
    images_per_shard: Count = Field(10_000, description="images per shard that is packed from a folder or URLs")
    shards_per_embedding: Count = Field(1000, description="shards of the pool per embedding job")
    candidates_per_screening: Count = Field(100, description="candidates of a fine-tuning per job that compares them")
    keep_candidates: bool = Field(
        True,
        description="keep the candidates of a fine-tuning that are not chosen; without them less disk is needed, but "
        "what compares them again, such as another classifier, fine-tunes again",
    )
    save_minutes: Positive = Field(10, description="minutes between the states from which a killed training resumes")
