"""What belongs to a value of an axis stands in its class: nothing compares it with a string."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
AXES = ("reader", "source", "start", "trained", "augment", "budget")
PYTHON = [*ROOT.glob("src/augbench/**/*.py"), *ROOT.glob("workflow/scripts/*.py")]
RULES = [ROOT / "Snakefile", *ROOT.glob("workflow/rules/*.smk")]  # which are no Python


def axis_of(node) -> str | None:
    """The axis that an expression reads: ``pool.source``, ``pool["source"]``, ``pool.source.name``."""
    if isinstance(node, ast.Attribute):
        return axis_of(node.value) if node.attr == "name" else node.attr
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return node.slice.value
    return None


def has_text(node) -> bool:
    return any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(node))


def comparisons(text: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            others = [side for side in sides if axis_of(side) not in AXES]
            if len(others) < len(sides) and any(map(has_text, others)):
                found.append(ast.unparse(node))
    return found


def comparisons_in_rules(text: str) -> list[str]:
    names = "|".join(AXES)
    pattern = rf"""(?:\.|\[["'])(?:{names})(?:["']\])?(?:\.name)?\s*(?:==|!=|not\s+in|in)\s*[\[({{]?\s*["'].*"""
    return re.findall(pattern, text)


@pytest.mark.parametrize("file", PYTHON, ids=lambda file: file.name)
def test_no_module_compares_an_axis_with_a_string(file):
    assert comparisons(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.name)
def test_no_rule_compares_an_axis_with_a_string(file):
    assert comparisons_in_rules(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        'study.pool.source == "folder"',
        'pool["source"] in ("folder", "shards")',
        '"digits" != target.reader',
        'pool.source.name == "folder"',
    ],
)
def test_a_comparison_is_seen(text):
    assert comparisons(text)
    assert comparisons_in_rules(text) or text.startswith('"')
