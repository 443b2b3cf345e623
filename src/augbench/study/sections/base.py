"""What all sections of the configuration have in common."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import core_schema

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$")]


class ConfigError(Exception):
    """A mistake in the configuration or the data it names, told in one sentence."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @classmethod
    def default(cls) -> Self:
        """The section of a configuration that leaves it out."""
        return cls.model_validate({})


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


@dataclass(frozen=True, eq=False)  # hashed by its identity, for a registry has no hash
class RowOf:
    """Annotates a key whose value is the name of a row of a registry; validated, it is that row's object."""

    registry: Mapping[str, Any]
    word: str

    def find(self, value):
        if any(value is row for row in self.registry.values()):
            return value
        if not isinstance(value, str) or value not in self.registry:
            known = ", ".join(self.registry)
            raise ValueError(f"there is no {self.word} {value!r}{did_you_mean(value, self.registry)} (known: {known})")
        return self.registry[value]

    def __get_pydantic_core_schema__(self, *_) -> core_schema.CoreSchema:
        name = core_schema.plain_serializer_function_ser_schema(lambda row: row.name)
        return core_schema.no_info_plain_validator_function(self.find, serialization=name)

    def __get_pydantic_json_schema__(self, *_) -> dict:
        return {"type": "string", "enum": list(self.registry)}
