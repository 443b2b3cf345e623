"""The paper's protocol (sections 3, 3.1 and 4.5), number by number, against the effective configuration and the code.

docs/protocol.csv is the golden table. ``value`` is the paper's, or where it is silent the chosen one, with its
``source``; ``carrier`` says what holds it: ``config STUDY.KEY``, ``method NAME.KEY``, ``templates FILE``, ``part
NAME.ATTRIBUTE`` of a trained part, ``code MODULE.CONSTANT``, ``hours WHAT`` (GPU-hours that the cost model gives the
paper's study) or ``test FILE::NAME`` of what is a behaviour.
"""

import csv
import importlib
import json
import re
from pathlib import Path

import pytest
import yaml

from augbench.jobs import resources
from augbench.study import config, prompts
from augbench.study.parts import PARTS

ROWS = list(csv.DictReader(Path("docs/protocol.csv").open(newline="", encoding="utf-8")))
# What says where data lie, how work is cut and how fast it is read is no part of a protocol.
NOT_PROTOCOL = re.compile(
    r"(jobs|target\.(path|ground_truth)|pool\.path|retrieval\.aesthetic_model|retrieval\.threads|seed|classifier\.workers)\b"
)
HOURS = {
    "sampling": lambda: resources.sampling(390 * 1000, 50, 512) / 3600,
    "classifier": lambda: 5 * resources.classifier(2 * 126_861, 100, 224) / 3600,
    "retrieval": lambda: resources.retrieval(130 * 1000) / 3600,
}


@pytest.fixture(scope="module")
def raw():
    return yaml.safe_load(Path("config/paper.yaml").read_text())


@pytest.fixture(scope="module")
def effective(raw):
    return config.parse(yaml.safe_load(Path("config/methods.yaml").read_text()) | raw)


def at(mapping, key):
    for part in key.split("."):
        mapping = mapping[part]
    return mapping


def carried(kind: str, key: str, effective):
    if kind in ("config", "method"):
        whole = effective.model_dump(mode="json")
        return at(whole["studies" if kind == "config" else "methods"], key)
    if kind == "templates":
        texts = prompts.templates(key.removesuffix(" #"))
        return len(texts) if key.endswith(" #") else texts
    if kind == "part":
        name, _, attribute = key.partition(".")
        return getattr(PARTS[name], attribute)
    if kind == "code":
        module, _, name = key.rpartition(".")
        return getattr(importlib.import_module(f"augbench.{module}"), name)
    if key in HOURS:
        return HOURS[key]()
    return resources.finetuning(126_861, 40, 512, [PARTS[name] for name in key.split()]) / 3600


NUMBERS = [row for row in ROWS if not row["carrier"].startswith("test ")]


@pytest.mark.parametrize("row", NUMBERS, ids=[row["carrier"] for row in NUMBERS])
def test_the_configuration_and_the_code_hold_the_papers_value(row, effective):
    expected = json.loads(row["value"])
    found = carried(*row["carrier"].split(" ", 1), effective)
    assert found == (pytest.approx(expected) if isinstance(expected, float | int) else expected), row["what"]


def test_behaviours_have_their_tests():
    for row in ROWS:
        if row["carrier"].startswith("test "):
            file, name = row["carrier"].removeprefix("test ").split("::")
            assert f"\ndef {name}(" in Path(file).read_text(), row["what"]


def leaves(mapping, place=""):
    for key, value in mapping.items():
        inner = f"{place}.{key}" if place else key
        if isinstance(value, dict):
            yield from leaves(value, inner)
        else:
            yield inner


def test_nothing_that_the_configuration_sets_is_missing(raw):
    known = {row["carrier"].removeprefix("config ") for row in ROWS}
    found = {f"{study}.{key}" for study, given in raw["studies"].items() for key in leaves(given)}
    assert {key for key in found if not NOT_PROTOCOL.match(key.split(".", 1)[1])} <= known


def test_every_choice_has_a_source_and_no_row_is_there_twice():
    assert all(row["source"].startswith(("paper", "silent")) for row in ROWS)
    carriers = [row["carrier"] for row in ROWS]
    assert len(set(carriers)) == len(carriers)


def test_learning_rates_grow_with_the_square_root_of_the_batch(effective):
    """The optimiser gets rate x sqrt(batch) x learning rate of each trained part."""
    from augbench.diffusion import trainer

    rates = trainer.scaled_rates(effective.methods["pseudoword_dm"], config.Finetune(batch_size=64), 0.5)
    expected = {"unet": 0.5 * 8 * 5e-7, "pseudo_word": 0.5 * 8 * 5e-4}
    assert {part.name: value for part, value in rates.items()} == pytest.approx(expected)
