"""A study of the target alone, trained harder, and of added images that are mixed in, at equal steps."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from clones import ROOT
from PIL import Image

from augbench.core.files import read_json

ADDING = {"title": "More", "family": "baseline", "start": "more_real"}
CONFIG = {
    "methods": {
        "weighted": ADDING | {"mix": {"weight": 0.2}},
        "replaced": ADDING | {"mix": {"probability": 0.5}, "augment": "trivialaugment"},
    },
    "studies": {
        "s": {
            "methods": ["randaugment", "none", "more_real", "weighted", "replaced"],
            "target": {"reader": "folder", "path": "data"},
            "dataset": {"train": 0.4, "validation": 0.2, "test": 0.2},
            "runs": 1,
            "classifier": {"model": "small_cnn", "image_size": 16, "batch_size": 4, "budget": "steps", "steps": 12},
        }
    },
}


def run(folder, config, *arguments) -> str:
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", "mine.yaml"]
    done = subprocess.run(
        [*command, "--cores", "2", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.slow
def test_methods_are_compared_at_equal_steps(tmp_path):
    random = np.random.default_rng(0)
    for key in ("ant", "bee"):
        (tmp_path / "data" / key).mkdir(parents=True)
        for i in range(15):
            pixels = random.integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / key / f"{i}.png")
    run(tmp_path, CONFIG, "results/s/report.html")
    results = tmp_path / "results" / "s"
    table = pd.read_csv(results / "tables" / "table1.csv").set_index("method")
    assert set(table.index) == set(CONFIG["studies"]["s"]["methods"])
    assert set(table["steps"]) == {12} and set(table["images_seen"]) == {48}
    assert table.loc["more_real", "epochs"] < table.loc["none", "epochs"] == table.loc["replaced", "epochs"]
    page = (results / "report.html").read_text()
    assert "every method is trained for the same number of steps" in page and "RandAugment" in page
    augments = {m: read_json(results / f"summary/{m}.json")["augment"] for m in table.index}
    assert augments == dict.fromkeys(table.index) | {
        "randaugment": "randaugment",
        "replaced": "trivialaugment",
    }

    asked = CONFIG["methods"]["weighted"] | {"mix": {"weight": 0.4}}
    changed = CONFIG | {"methods": CONFIG["methods"] | {"weighted": asked}}
    again = run(tmp_path, changed, "results/s/report.html")
    assert "train classifiers 1 to 1 of weighted" in again
    assert not any(f"of {method} at ratio" in again for method in ("none", "more_real", "replaced"))
    assert "rule resample:" not in again
