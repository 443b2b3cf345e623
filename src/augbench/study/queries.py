"""What retrieval searches for: a class's prompts, its training images, and what images should not be like."""

from typing import Annotated

from pydantic import ConfigDict, Field, model_serializer, model_validator

from augbench.study.sections.base import Positive, Section, did_you_mean

NAMES = {"text": {"texts": 1.0}, "text_and_images": {"texts": 1.0, "images": 1.0}}  # of frequent ones


class Query(Section):
    """A linear combination of directions in CLIP space, each the mean of one kind of input, whatever their number. In a
    configuration one of NAMES stands for its weights."""

    model_config = ConfigDict(populate_by_name=True)

    texts: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of the class's prompts")
    images: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of the class's training images")
    unlike: str | None = Field(
        None, alias="not", description="a text whose direction is taken away, e.g. drawing; null: none"
    )
    not_weight: Positive = Field(1.0, description="weight of that text")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value):
        if not isinstance(value, str):
            return value
        if value not in NAMES:
            raise ValueError(
                f"there is no query {value!r}{did_you_mean(value, NAMES)} (known: {', '.join(NAMES)}, or weights, e.g. "
                "{texts: 1, images: 0.5})"
            )
        return NAMES[value]

    @model_validator(mode="after")
    def _something(self):
        if not (self.texts or self.images):
            raise ValueError("a query needs a weight of texts or images above 0, e.g. `query: {texts: 1, images: 0.5}`")
        if self.unlike is not None and not self.unlike.strip():
            raise ValueError("not: is empty; write a text, e.g. `not: drawing`, or leave it out")
        return self

    @model_serializer(mode="wrap")
    def _by_name(self, usual):
        name = next((name for name, weights in NAMES.items() if self == Query(**weights)), None)
        return name or usual(self)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema, handler):
        return {"anyOf": [{"type": "string", "enum": list(NAMES)}, handler(schema)]}

    @property
    def is_texts_alone(self) -> bool:
        return not self.images and self.unlike is None
