"""How work is cut into jobs."""

from pydantic import Field

from augbench.study.sections.base import Count, Positive, Section


class Jobs(Section):
    """How work is cut into jobs. Results do not depend on it."""

    classes_per_generation: Count = Field(1000, description="classes that one generation job takes")
    runs_per_classifier: Count = Field(5, description="classifier runs that one job takes")
    images_per_shard: Count = Field(10_000, description="images in a shard, of a pool that is a folder or URLs")
    shards_per_embedding: Count = Field(1000, description="shards of the pool that one embedding job takes")
    candidates_per_screening: Count = Field(100, description="candidates of a fine-tuning that one job compares")
    save_minutes: Positive = Field(10, description="time between the states that a killed training resumes from")
