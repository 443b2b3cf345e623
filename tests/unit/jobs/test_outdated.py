"""`make outdated` names what holds a package back, and says so when it cannot ask."""

import importlib.util
from pathlib import Path

from packaging.requirements import Requirement


def tool():
    spec = importlib.util.spec_from_file_location("outdated", Path("envs/outdated.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_holders_are_those_whose_requirement_excludes_the_newest():
    required = {"old-one 1.0": [Requirement("A_b<2")], "open-one 3.0": [Requirement("a-b>=1")]}
    newer = [{"name": "a.b", "version": "1.9", "latest_version": "2.0"}]
    newer += [{"name": "free", "version": "1", "latest_version": "2"}]
    lines = tool().report_outdated(newer, required, [Requirement("a-b<2,>=1")])
    assert lines == [
        "a-b 1.9 -> 2.0: pyproject.toml asks for a-b<2,>=1; old-one 1.0 (its newest version) asks for A_b<2",
        "free 1 -> 2: no requirement excludes it: try make lock UPGRADE=1",
    ]


def test_every_override_is_still_needed():
    outdated = tool()
    lines = outdated.report_overrides(outdated.installed_requirements())
    assert lines and not [line for line in lines if "can go" in line]


def test_an_override_that_nobody_needs_is_named():
    assert all("the override can go" in line for line in tool().report_overrides({}))


def test_without_an_index_it_says_so_and_fails(tmp_path, monkeypatch, capsys):
    (tmp_path / "uv").write_text("#!/bin/sh\necho 'error: no network' >&2\nexit 2\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert tool().main() == 1
    said = capsys.readouterr()
    assert "Overrides" in said.out
    assert said.err.strip() == "The package index cannot be asked what is newer: error: no network"
