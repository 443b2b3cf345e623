"""The reference of every key of the configuration: config/README.md for people, config/schema.json for editors."""

import json
from typing import Any, Literal

import yaml

from augbench.study.config import Config, Study, kinds_in
from augbench.study.methods import Method
from augbench.study.sections.base import RowOf, Section

INTRODUCTION = """\
# Configuration

A configuration is a YAML file with one or more studies and, if you like, methods of your own. This one compares five
methods on the images in `data/birds`:

```yaml
# yaml-language-server: $schema=schema.json
methods: # rows that join the table config/methods.yaml; a row of the same name changes that row
  blurry: {title: Blurry, family: prompting, conditioning: blurry, start: noise} # resources/templates/blurry.txt
studies:
  birds: # its results are in results/birds
    methods: [none, more_real, clip_prompts, blurry, retrieval] # rows of the table
    target: {reader: folder, path: data/birds} # the labelled images
    dataset: {train: 0.4, validation: 0.1, test: 0.1} # shares of each class; the rest is for more_real
    backbone: {model: CompVis/stable-diffusion-v1-4} # for methods that generate
    clip: {model: ViT-L/14} # for methods that retrieve, as is the pool
    pool: {source: index, path: data/laion-index}
    retrieval: {min_aesthetic: null}
```

- `snakemake --configfile birds.yaml -n` checks it and shows the plan; without `-n` it runs. Of several files after
  `--configfile` later ones change earlier ones, key by key. Without `--configfile`, `config/config.yaml` is used.
- A key that is left out has its default. Defaults are the paper's settings for 10% ImageNet; small data sets need
  another `classifier`, which `make new-study` suggests. A key that does not exist is an error.
- Relative paths start at the folder in which Snakemake runs.
- The first line lets editors with a YAML language server complete and check keys.

| file | what it holds |
|---|---|
| `config.yaml` | the default study: handwritten digits, offline |
| `digits_all.yaml` | all methods of the paper for it: `--configfile config/config.yaml config/digits_all.yaml` |
| `paper.yaml` | the paper's studies, at full size |
| `methods.yaml` | the method table; [docs/methods.md](../docs/methods.md) explains it |

The tables below list every key. They are made from `src/augbench/study` by `make docs`.
"""

METHOD = "METHOD"  # stands for a method's name where there is a section for each


def markdown() -> str:
    """The reference of every key, as config/README.md holds it, after an introduction."""
    lines = INTRODUCTION.splitlines()
    sections = [("methods.NAME", Method), ("studies.NAME", Study)]
    listed: dict[type, str] = {}  # section -> the first key whose value it is
    while sections:
        place, section = sections.pop(0)
        lines += ["", f"## `{place}`", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        for key, field in section.model_fields.items():
            inner = [
                kind for kind in kinds_in(field.annotation) if isinstance(kind, type) and issubclass(kind, Section)
            ]
            if inner and inner[0] in listed:
                lines.append(f"| `{key}` | sections by name | | {field.description}; keys as in `{listed[inner[0]]}` |")
                continue
            if inner:
                listed[inner[0]] = key
                of_each = f".{METHOD}" if getattr(field.annotation, "__origin__", None) is dict else ""
                sections.append((f"{place}.{key}{of_each}", inner[0]))
                meaning = f"{field.description}; see below" if field.description else "see below"
                lines.append(f"| `{key}` | section | | {meaning} |")
                continue
            default = "required" if field.is_required() else f"`{yaml_value(field.default)}`"
            lines.append(f"| `{field.alias or key}` | {_kind(field)} | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def json_schema() -> str:
    """A JSON schema of a configuration file, by which editors complete and check keys.

    No key is required: a file may hold studies or methods alone, or be one of several that are joined.
    """
    schema = _without_required(Config.model_json_schema())
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(head | schema | {"title": "augbench configuration"}, indent=1) + "\n"


def _without_required(schema: Any) -> Any:
    """Also without the texts of classes, which are for programmers."""
    if isinstance(schema, list):
        return [_without_required(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = {"required"} | ({"description"} if "properties" in schema else set())
    return {
        key: {name: _without_required(inner) for name, inner in value.items()}
        if key in ("properties", "$defs")
        else _without_required(value)
        for key, value in schema.items()
        if key not in left_out
    }


def yaml_value(value) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _kind(field) -> str:
    words = {float: "number", int: "whole number", str: "text", bool: "true/false", list: "list", dict: "mapping"}
    parts = [
        part
        for part in kinds_in(field.annotation)
        if part in words or getattr(part, "__origin__", None) in (list, dict)
    ]
    literal = [part for part in kinds_in(field.annotation) if getattr(part, "__origin__", None) is Literal]
    inner = [each for kind in kinds_in(field.annotation) for each in getattr(kind, "__metadata__", ())]
    for each in [*field.metadata, *inner]:
        if isinstance(each, RowOf):
            return ", ".join(each.registry)
    if literal:
        return ", ".join([words[bool]] * (bool in parts) + [str(value) for value in literal[0].__args__])
    if not parts:
        return "list"
    return words.get(getattr(parts[0], "__origin__", parts[0]), "list")
