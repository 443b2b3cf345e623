"""The memory of stages that hold tables, at some hundredths of the paper's rows, against what rules ask for."""

import importlib
import sys
from pathlib import Path

import pytest

from augbench.jobs import resources

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SMALL, LARGE = 0.005, 0.03  # of the paper's rows
NOISE = 60  # megabytes that two runs of the same may differ by, and buffers that do not grow further


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("rows")
    sys.modules.pop("rows")


def test_every_stage_that_is_measured_is_one_whose_rule_asks_by_rows(rows):
    assert set(rows.STAGES) | {"classifier_process"} == set(resources.TABLES)


@pytest.mark.slow
@pytest.mark.parametrize("rule", sorted(set(resources.TABLES) - {"classifier_process"}))
def test_a_row_takes_no_more_memory_than_its_rule_asks_for(rows, tmp_path, rule):
    found = []
    for scale in (SMALL, LARGE):
        folder = tmp_path / str(scale)
        folder.mkdir()
        found.append(rows.measure(rule, str(folder), scale))
    few, many = found
    assert few["taken"] <= few["asked"] and many["taken"] <= many["asked"]
    assert many["taken"] - few["taken"] <= many["asked"] - few["asked"] + NOISE
