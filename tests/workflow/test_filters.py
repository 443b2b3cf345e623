"""Two rows over the same images, one of them filtered, in a study that drops leaks: what was planted is left out."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_external import KEYS, PER_CLASS, SECTIONS, method, noise, run

from augbench import images
from augbench.study.scores import SCORES

REPEATED = 12


def configuration(**rule) -> dict:
    rows = {"mine": method("Mine"), "novel": method("Mine, filtered") | {"filter": rule}}
    study = {"methods": ["none", "mine", "novel"], "added": {"mine": "mine", "novel": "mine"}, "drop_leaks": True}
    return {"methods": rows, "studies": {"one": study | SECTIONS}}


RULE = {"by": "novelty", "at_least": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A target, and images of which some are copies: of a test image of each class, and of one image a dozen times."""
    folder, random = tmp_path_factory.mktemp("filters"), np.random.default_rng(0)
    (folder / "guard").mkdir()
    for key in KEYS:
        for i in range(PER_CLASS):
            noise(folder / "data" / key / f"{key}{i}.png", random)
            noise(folder / "mine" / key / f"{i}.png", random)
    for i in range(REPEATED):
        shutil.copy(folder / "mine" / "ant" / "0.png", folder / "mine" / "ant" / f"again{i:02}.png")
    code, output = run(folder, configuration(**RULE), "results/one/dataset/test.parquet")
    assert code == 0, output
    test = images.read(folder / "results/one/dataset/test.parquet")
    for key, rows in test.groupby("class"):
        shutil.copy(folder / rows["path"].iloc[0], folder / "mine" / key / "leak.png")
    return folder


@pytest.fixture(scope="module")
def built(folder):
    code, output = run(folder, configuration(**RULE), "results/one/report.html")
    assert code == 0, output
    return folder / "results" / "one"


@pytest.mark.slow
def test_ledgers_name_each_planted_image_and_sets_have_none(built):
    planted = {"mine": {f"{key}/leak" for key in KEYS}}
    planted["novel"] = planted["mine"] | {f"ant/again{i:02}" for i in range(REPEATED)} - {"ant/again00"} | {"ant/0"}
    for name, wanted in planted.items():
        ledger = pd.read_csv(built / "filtered" / name / "main" / "ledger.csv")
        dropped = {str(Path(each.partition("/")[2]).with_suffix("")) for each in ledger["image_id"]}
        # Of equal images the first stays, whichever that is.
        assert dropped ^ wanted <= {"ant/0", "ant/again00"} and len(dropped) == len(ledger)
        sets = [images.read(path) for path in sorted((built / "augmentation" / name / "x1").glob("*.parquet"))]
        assert not {each for table in sets for each in table["image_id"]} & set(ledger["image_id"])
    counts = pd.read_csv(built / "filtered/novel/main/counts.csv").set_index("class")
    assert counts.loc["ant", ["candidates", "leaks", "filtered", "kept"]].tolist() == [25, 1, 12, 12]


@pytest.mark.slow
def test_both_rows_are_measured_and_nothing_is_made_twice(built):
    table = pd.read_csv(built / "tables/table1.csv")
    assert set(table["method"]) == {"none", "mine", "novel"}
    for stage in ("added", "scores"):
        assert [path.name for path in (built / stage).iterdir()] == ["mine"]
    scores = pd.read_parquet(built / "scores/mine/main/scores.parquet")
    assert len(scores) == len(KEYS) * (PER_CLASS + 1) + REPEATED and scores["confidence"].between(0, 1).all()
    assert {name for name in SCORES if scores[name].notna().all()} == {
        "confidence",
        "train_bits",
        "held_out_bits",
        "novelty",
    }
    metrics = pd.read_csv(built / "tables/set_metrics.csv").set_index("method")
    assert set(metrics.index) == {"mine", "novel"} and metrics["kid"].notna().all()
    assert (metrics["images"] == 9).all() and (metrics["encoder"] == "classifier").all()  # as many as there are to test
    page = (built / "report.html").read_text()
    assert "Scores and filters" in page and "novelty: at least 1" in page
    assert (built / "figures/set_metrics.svg").is_file()


@pytest.mark.slow
def test_a_class_that_a_filter_empties_is_a_sentence(folder, built):
    code, output = run(folder, configuration(by="confidence", at_least=1.1), "results/one/report.html")
    said = "".join(path.read_text() for path in (built / "logs" / "scores").glob("novel-*.log"))
    assert code != 0
    assert "the filter of novel by confidence leaves none of the" in output + said
    assert "write a lower `at_least` than 1.1" in output + said
