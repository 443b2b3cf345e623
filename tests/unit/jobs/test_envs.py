"""The conda environment holds what the lock holds."""

import re
from pathlib import Path

import yaml


def test_the_conda_environment_has_the_locks_pins():
    pip = yaml.safe_load(Path("envs/augbench.yaml").read_text())["dependencies"][-1]["pip"]
    text = Path("requirements.lock").read_text().replace("\\\n", " ")
    locked = [re.split(r"\s+--hash", line)[0].strip() for line in text.splitlines() if "==" in line]
    assert len(locked) > 100
    assert pip == locked


def test_no_index_is_named():
    for name in ("requirements.lock", "envs/augbench.yaml", "envs/Containerfile", "pyproject.toml"):
        assert not re.search(r"https?://|--index|--find-links", Path(name).read_text())
