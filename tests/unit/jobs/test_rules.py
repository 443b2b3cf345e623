"""What augbench adds to its rules: parameters compared by name, and settings of a profile for numbered rules."""

from types import SimpleNamespace

import pytest
from snakemake.resources import Resources

from augbench.jobs import gpus, rules


class Rule(SimpleNamespace):
    def set_params(self, **params):
        self.params |= params


def test_parameters_are_compared_by_name():
    """Snakemake compares the set of values: 1 and 2 with 2 and 1 would be no change."""
    one = Rule(params={"code": "x", "seed": lambda wildcards: 1, "parts": 2, "settings": {"a": 1}})
    other = Rule(params={"code": "x", "seed": 2, "parts": 1, "settings": {"a": 1}})
    rules.name_parameters([one, other])
    assert one.params["named"](None) == {"code": "x", "seed": 1, "parts": 2}  # a section is compared by itself
    assert other.params["named"](None) == {"code": "x", "seed": 2, "parts": 1}


def test_a_rule_with_one_parameter_beside_the_code_needs_no_names():
    alone = Rule(params={"code": "x", "seed": 2})
    rules.name_parameters([alone])
    assert "named" not in alone.params


def test_numbered_rules_take_a_profiles_settings_of_the_first_unless_it_names_them():
    settings = SimpleNamespace(
        _parsed_overwrite_resources={"classify": "t4", "classify_3": "v100"}, _parsed_overwrite_threads={}
    )
    assert [rules.numbered_rule("classify", place, settings) for place in range(3)] == [
        "classify", "classify_2", "classify_3",
    ]  # fmt: skip
    assert settings._parsed_overwrite_resources == {"classify": "t4", "classify_2": "t4", "classify_3": "v100"}
    assert settings._parsed_overwrite_threads == {}


@pytest.mark.parametrize(
    ("said", "nodes", "is_main", "expected"),
    [
        ({}, None, True, 2),
        ({"gpu": 1}, None, True, 1),  # a profile, or the command line
        ({}, 10, True, None),  # jobs of a cluster, whose login node may have GPUs itself
        ({}, None, False, None),  # a job, which reads the rules again
    ],
)
def test_so_many_jobs_with_a_gpu_run_at_once_as_there_are(monkeypatch, said, nodes, is_main, expected):
    monkeypatch.setattr(gpus, "usable", lambda: 2)
    settings, resources = SimpleNamespace(nodes=nodes), Resources()
    for name, value in said.items():
        resources[name] = value
    workflow = SimpleNamespace(resource_settings=settings, is_main_process=is_main, global_resources=resources)
    rules.share_gpus(workflow)
    assert workflow.global_resources.get("gpu").value == expected


def test_without_gpus_jobs_are_not_limited_by_them(monkeypatch):
    monkeypatch.setattr(gpus, "usable", lambda: 0)
    settings = SimpleNamespace(nodes=None)
    workflow = SimpleNamespace(resource_settings=settings, is_main_process=True, global_resources=Resources())
    rules.share_gpus(workflow)
    assert "gpu" not in workflow.global_resources
