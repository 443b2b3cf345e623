"""The profiles: they name rules that there are, every rule that has use for a GPU, and hide nothing of each other."""

import re
from pathlib import Path

import pytest
import yaml
from random_pipelines import write_pictures


def read(path):
    return yaml.safe_load(Path(path).read_text())


@pytest.fixture(scope="module")
def fresh(clone):
    """A clone with ``my.yaml``, the digits study with all rules that it can have: every method, a job for each run of a
    classifier, a second classifier, which is a probe, a further test set, scores, CLIP zero-shot,
    and a second detector in the audit."""
    fresh = clone()
    config = read("config/config.yaml")
    config["studies"]["digits"] |= read("config/digits_all.yaml")["studies"]["digits"]
    config["studies"]["digits"] |= {
        "jobs": {"runs_per_classifier": 1},
        "audit": {"detector": "clip"},
        "scores": True,
        "zero_shot": True,
        "classifiers": {"probe": {"model": "timm/resnet18", "weights": "pretrained", "train": "probe"}},
        "evaluate": {"drawn": {"path": "drawn", "classes": "position"}},
    }
    write_pictures(fresh.folder / "drawn" / "0", 16, 1)
    (fresh.folder / "my.yaml").write_text(yaml.safe_dump(config))
    return fresh


@pytest.fixture(scope="module")
def rules(fresh):
    """Rule -> whether its jobs ask for a GPU."""
    return {
        name: bool(re.search(" gpu=[1-9]", text.split("\n\n")[0]))
        for name, text in fresh.plan("--configfile", "my.yaml")
    }


def test_the_profile_names_rules_that_exist(rules):
    assert read("slurm/config.yaml")["set-resources"].keys() <= rules.keys()


def test_the_slurm_profile_says_where_each_rule_finds_its_gpus(rules):
    asking = {name for name, asks in rules.items() if asks}
    assert {"finetune", "generate", "classify", "classify_5"} <= asking
    numbered = {name for name in asking if re.search(r"_[0-9]+$", name)}  # these follow the first
    assert read("slurm/config.yaml")["set-resources"].keys() == asking - numbered


def test_what_a_profile_says_of_classify_holds_for_each_of_its_rules(fresh):
    """However many there are: a run each, of more runs than any profile could name."""
    config = read(fresh.folder / "my.yaml")
    config["studies"]["digits"]["runs"] = 7
    (fresh.folder / "runs.yaml").write_text(yaml.safe_dump(config))
    set_resources = ["--set-resources", "classify:gpu_model=t4", "--set-threads", "classify=2"]
    target = "results/digits/summary/none.json"
    jobs = fresh.plan("--configfile", "runs.yaml", *set_resources, "--", target)
    classify = {name: text for name, text in jobs if name.startswith("classify")}
    assert classify.keys() == {"classify", *(f"classify_{place}" for place in range(2, 8))}
    assert all("gpu_model=t4" in text and "threads: 2" in text for text in classify.values())
    assert not any("gpu_model" in text for name, text in jobs if name not in classify)


def test_no_profile_hides_a_key_of_another():
    """profiles/default is read beside the other, and its keys win, each as a whole."""
    assert not read("profiles/default/config.yaml").keys() & read("slurm/config.yaml").keys()


def test_the_site_fills_no_rule_in(rules):
    """Partitions are named in profiles alone, and retries too: in a rule they would multiply."""
    for file in Path("workflow/rules").glob("*.smk"):
        assert not re.search(r"slurm_|^\s+retries:", file.read_text(), re.MULTILINE)
