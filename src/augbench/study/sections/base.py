"""What all sections of the configuration have in common."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$")]


class ConfigError(Exception):
    """A mistake in the configuration or the data it names, told in one sentence."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Inputs(Section):
    """A job's input files as its rule names them; those that a job goes without are None, or keep their default."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, files):
        return {
            name: list(map(str, file)) if isinstance(file, list) else str(file) for name, file in files.items() if file
        }


def exactly_one(section, name, one, other, example):
    if (getattr(section, one) is None) == (getattr(section, other) is None):
        raise ValueError(f"{name} takes either `{one}` or `{other}`, e.g. `{example}`")
    return section


def did_you_mean(word: str, known) -> str:
    close = difflib.get_close_matches(str(word), list(map(str, known)), 1, 0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def one_of(kind: type, registry: Mapping[str, Any], word: str):
    """The type of a key whose value is the name of a row of a registry; validated, it is that row's object."""

    def find(value):
        if isinstance(value, kind):
            return value
        if not isinstance(value, str) or value not in registry:
            known = ", ".join(registry)
            raise ValueError(f"there is no {word} {value!r}{did_you_mean(value, registry)} (known: {known})")
        return registry[value]

    return Annotated[
        kind,
        PlainValidator(find),
        PlainSerializer(lambda row: row.name),
        WithJsonSchema({"type": "string", "enum": list(registry)}),
    ]
