"""The table of docs/backbones.md beside the families that it tells of."""

import re

import pytest

from augbench.models import families
from augbench.study.parts import PARTS

PAGE = open("docs/backbones.md").read()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
ROWS = {row[0]: row[1:] for row in ROWS if len(row) == 7 and row[0] != "family"}
NAMED = {name: re.findall("`([^`]+/[^`]+)`", row[0]) for name, row in ROWS.items()}
NAMED = {name: ids for name, ids in NAMED.items() if ids}


def test_each_family_has_a_line():
    pages = {families.of_name(ids[0]) for ids in NAMED.values()}
    assert pages == {family for family in families.FAMILIES if family.hub_ids}


@pytest.mark.parametrize("name", NAMED)
def test_a_line_says_what_holds(name):
    model, numbers, reads, trained, checker, _ = ROWS[name]
    ids = NAMED[name]
    family = families.of_name(ids[0])
    assert ("(gated)" in model) == ids[0].startswith(family.gated_ids or ("\0",))
    assert numbers.startswith(f"{family.steps}, {family.guidance}, {family.image_size}")
    assert ("no negative prompt" in reads) != family.takes_negative_prompt
    parts = set(PARTS) if trained.startswith("all parts") else set(re.findall("`([a-z_]+)`", trained))
    assert parts == {part.name for part in PARTS.values() if family.can_train(part)}
    assert (checker != "no") == family.ships_checker


def test_lines_to_copy_name_the_same_models():
    copied = set(re.findall(r"^backbone: \{model: ([^,}]+)", PAGE, re.MULTILINE))
    assert copied == {ids[0] for ids in NAMED.values()}


def test_the_line_of_all_others_names_each():
    (line,) = (name for name in ROWS if name.startswith("AuraFlow"))
    words = re.sub("[ .-]", "", line).lower()
    for family in families.FAMILIES:
        if not family.hub_ids:
            for pipeline in family.pipelines:
                stem = re.sub("(Plus|Image|Klein)?Pipeline$", "", pipeline).lower()
                stem = {"latentconsistencymodel": "lcm"}.get(stem, stem).rstrip("0123456789")
                assert stem in words, pipeline
