"""A study with two classifiers: a network from scratch, and a probe of a pretrained one."""

import re

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from test_baselines import run
from timm_folders import write_vit

from augbench.core.files import read_json

SMALL = {"model": "small_cnn", "image_size": 32, "batch_size": 8, "max_epochs": 2, "learning_rate": 0.05}
CONFIG = {
    "methods": {"more": {"title": "More", "family": "baseline", "start": "more_real"}},
    "studies": {
        "s": {
            "methods": ["none", "more"],
            "target": {"reader": "folder", "path": "data"},
            "dataset": {"train": 0.4, "validation": 0.2, "test": 0.2},
            "runs": 2,
            "classifier": SMALL,
            "classifiers": {"probe": {"model": "local-dir:network", "weights": "pretrained", "train": "probe"}},
        }
    },
}


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for place, key in enumerate(("ant", "bee")):
        (tmp_path / "data" / key).mkdir(parents=True)
        for i in range(15):
            pixels = random.integers(0, 200, (32, 32, 3), np.uint8)
            pixels[..., place] += 50
            Image.fromarray(pixels).save(tmp_path / "data" / key / f"{i}.png")
    write_vit(tmp_path / "network")
    return tmp_path


def planned(folder, config) -> dict[str, int]:
    """Rule -> jobs that would run."""
    text = run(folder, config, "-n", "results/s/report.html")
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE) if name != "total"}


@pytest.mark.slow
def test_classifiers_share_the_sets_of_images(folder):
    jobs = planned(folder, CONFIG)
    assert (jobs["resample"], jobs["dataset"], jobs["hash_added"]) == (1, 1, 1)
    assert (jobs["classify"], jobs["classify_further"]) == (2, 2)
    assert jobs["encode_features"] == 2  # of the splits, and of what one method adds

    run(folder, CONFIG, "results/s/report.html")
    results = folder / "results" / "s"
    table = pd.read_csv(results / "tables" / "classifiers.csv")
    names = ["main", "probe"]
    assert list(zip(table["classifier"], table["method"], strict=True)) == [
        (name, method) for name in names for method in ("none", "more")
    ]
    metrics = read_json(results / "classifiers/probe/more/x1/run-2/metrics.json")
    assert metrics["weights"]["licence"] == "apache-2.0"
    assert set(table["sha256"].dropna()) == {metrics["weights"]["sha256"]}
    for name in names:
        of_runs = [
            read_json(results / place / "more" / "x1" / f"run-{k}" / "metrics.json")["accuracy"]
            for k in (1, 2)
            for place in ["classifier" if name == "main" else f"classifiers/{name}"]
        ]
        row = table[(table["classifier"] == name) & (table["method"] == "more")].iloc[0]
        assert row["accuracy_mean"] == pytest.approx(np.mean(of_runs), abs=1e-4)
    page = (results / "report.html").read_text()
    assert "Other classifiers" in page and metrics["weights"]["sha256"] in page

    changed = yaml.safe_load(yaml.safe_dump(CONFIG))
    changed["studies"]["s"]["classifiers"]["probe"]["max_epochs"] = 9  # which features do not depend on
    assert planned(folder, changed).keys() == {"classify_further", "classifiers", "study_page"}
    (folder / "network" / "config.json").touch()
    again = planned(folder, CONFIG)
    assert (again["encode_features"], again["classify_further"]) == (2, 2)
    assert not again.keys() & {"classify", "resample", "judge"}
