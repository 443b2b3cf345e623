"""The profiles: they name rules that there are, every rule that has use for a GPU, and hide nothing of each other."""

import re
from pathlib import Path

import pytest
import yaml


def read(path):
    return yaml.safe_load(Path(path).read_text())


@pytest.fixture(scope="module")
def rules(clone):
    """Rule -> whether its jobs ask for a GPU, in the digits study with all rules that it can have: every method, a job
    for each run of a classifier, and a second detector in the audit."""
    fresh = clone()
    config = read("config/config.yaml")
    config["studies"]["digits"] |= read("config/digits_all.yaml")["studies"]["digits"]
    config["studies"]["digits"] |= {"jobs": {"runs_per_classifier": 1}, "audit": {"detector": "clip"}}
    (fresh.folder / "my.yaml").write_text(yaml.safe_dump(config))
    code, output = fresh.snakemake("-n", "--configfile", "my.yaml")
    assert code == 0, output
    blocks = re.split(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE)
    return {name: " gpu=" in text.split("\n\n")[0] for name, text in zip(blocks[1::2], blocks[2::2], strict=True)}


@pytest.mark.parametrize("profile", ["slurm/config.yaml", "profiles/gpus/config.yaml"])
def test_profiles_name_rules_that_exist(rules, profile):
    assert read(profile).get("set-resources", {}).keys() <= rules.keys()


def test_the_slurm_profile_says_where_each_rule_finds_its_gpus(rules):
    asking = {name for name, asks in rules.items() if asks}
    assert {"finetune", "generate", "classify", "classify_5"} <= asking
    assert read("slurm/config.yaml")["set-resources"].keys() == asking


def test_no_profile_hides_a_key_of_another():
    """profiles/default is read beside any other profile, and its keys win, each as a whole."""
    default = read("profiles/default/config.yaml").keys()
    for profile in ("slurm/config.yaml", "profiles/gpus/config.yaml"):
        assert not default & read(profile).keys()


def test_the_site_fills_no_rule_in(rules):
    """Partitions are named in profiles alone, and retries too: in a rule they would multiply."""
    for file in Path("workflow/rules").glob("*.smk"):
        assert not re.search(r"slurm_|^\s+retries:", file.read_text(), re.MULTILINE)
