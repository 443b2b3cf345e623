"""The configuration: defaults are the paper's, the files of this repository are valid, the reference is current."""

from pathlib import Path

import pytest
import yaml

from augbench import config

ROOT = Path(__file__).parents[2]


def load(*names):
    merged = {}
    for name in names:
        merged |= yaml.safe_load((ROOT / name).read_text())
    return merged


def test_the_default_study_is_valid():
    parsed = config.parse(load("config/methods.yaml", "config/config.yaml"))
    assert list(parsed.studies) == ["digits"]


def test_defaults_are_the_papers():
    classifier, retrieval = config.Classifier(), config.Retrieval()
    assert (classifier.model, classifier.batch_size, classifier.learning_rate) == ("resnet50", 256, 0.1)
    assert (classifier.max_epochs, classifier.patience, classifier.stop_after) == (270, 10, 20)
    assert (retrieval.overfetch, retrieval.overfetch_max, retrieval.min_aesthetic) == (1.4, 14, 5.0)
    assert (config.Generate().image_size, config.Generate().times, config.Dataset().train) == (512, 3, 0.1)


def test_the_reference_is_made_from_the_code():
    assert (ROOT / "config" / "README.md").read_text() == config.markdown(), "run `make docs`"


def test_every_mistake_is_told_at_once():
    raw = load("config/methods.yaml", "config/config.yaml")
    raw["studies"]["digits"] |= {"sed": 1, "runs": 0}
    with pytest.raises(config.ConfigError) as error:
        config.parse(raw)
    assert "studies.digits.sed: there is no such key, did you mean 'seed'?" in str(error.value)
    assert "studies.digits.runs: Input should be greater than or equal to 1 (it says 0)" in str(error.value)


def test_a_missing_template_names_the_known_ones():
    raw = load("config/methods.yaml", "config/config.yaml")
    raw["methods"]["mine"] = {
        "title": "m",
        "family": "prompting",
        "start": "noise",
        "conditioning": "clip_promts",
    }
    with pytest.raises(config.ConfigError, match=r"clip_promts.txt, did you mean 'clip_prompts'\?"):
        config.parse(raw)
