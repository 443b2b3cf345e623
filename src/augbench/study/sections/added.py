"""Images that were made elsewhere: where those of a method lie."""

from pydantic import ConfigDict, Field, model_validator

from augbench.study.sections.base import Section, exactly_one


def _or_text(schema: dict) -> None:
    """A path alone stands for the section."""
    section = dict(schema)
    schema.clear()
    schema.update({"anyOf": [{"type": "string"}, section]})


class Added(Section):
    """Images of a method whose start is ``folder``; a path alone, ``mine: data/mine``, stands for ``path``."""

    model_config = ConfigDict(json_schema_extra=_or_text)

    path: str | None = Field(
        None,
        description="where they lie: class folders, WebDataset shards, a Hugging Face imagefolder, or a CSV or Parquet "
        "list with the columns path,class, see docs/methods.md",
    )
    script: str | None = Field(
        None,
        description="instead: a Python script that augbench calls with the folder of the training images, CLASS/*, and "
        "the folder to fill",
    )
    allow_fewer: bool = Field(
        False, description="add what a class has where that is less than its ratio wants; false: stop"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value):
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one(self):
        return exactly_one(self, "a method of `added`", "path", "script", "path: data/mine")
