"""What the report says of scores and filters, and of metrics beside accuracy."""

import pandas as pd
import pytest
from made_report import EVIL, METHODS, exhibits, make_results, plan, write_page

from augbench.core import files
from augbench.dataset.filtering import COUNTS
from augbench.study.scores import COLUMNS

FILTERED = METHODS | {"retrieval": METHODS["retrieval"] | {"filter": {"by": "clip", "keep": 0.7}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results") / "digits")


@pytest.fixture
def further(tmp_path):
    """Scores of four images of retrieval, and what its filter left of them and leaks of ``ft``."""
    scores = pd.DataFrame({"class": ["a"] * 4, "clip": [0.1, 0.2, 0.3, 0.4], "novelty": 5.0}).reindex(columns=COLUMNS)
    scores.to_parquet(tmp_path / "scores.parquet")
    for name, rows in {
        "retrieval": [["a", 9, 1, 3, 5, 5], [EVIL, 9, 2, 3, 4, 5]],
        "ft": [["a", 9, 2, 0, 7, 5], [EVIL, 9, 0, 0, 9, 5]],
    }.items():
        files.write_csv(tmp_path / f"{name}.csv", pd.DataFrame(rows, columns=COUNTS))
    filtered = {name: str(tmp_path / f"{name}.csv") for name in ("retrieval", "ft")}
    return {"scores": {"retrieval": str(tmp_path / "scores.parquet")}, "filtered": filtered}


@pytest.mark.middle  # takes seconds
def test_counts_of_what_was_left_out_are_in_the_report(folder, further):
    study = plan(FILTERED, drop_leaks=True)
    shown = exhibits(folder, study, **further)
    by_method = {row["method"]: row for row in shown["filters"]["rows"]}
    assert list(by_method) == ["ft", "retrieval"]
    row = by_method["retrieval"]
    assert [row[name] for name in ("candidates", "leaks", "filtered", "kept")] == [18, 3, 6, 9]
    assert row["rule"] == "clip: the best 70%" and row["short"].startswith("1 of 2 classes have fewer")
    assert by_method["ft"]["rule"] == by_method["ft"]["short"] == ""
    (row,) = shown["scores"]["rows"]
    values = dict(zip(shown["scores"]["names"], row["values"], strict=True))
    assert values["CLIP"] == pytest.approx(0.25) and values["Novelty, bits"] == 5 and values["Confidence"] is None
    text = write_page(folder, study, **further)
    assert "Images that were left out before training, 11 in all" in text and EVIL not in text
    assert not {"filters", "scores"} & set(exhibits(folder, plan()))


@pytest.mark.middle  # takes seconds
def test_metrics_stand_beside_the_accuracy_that_is_gained(folder):
    rows = exhibits(folder, plan())["set_metrics"]["rows"]
    gained = {row["method"]: row["gained"] for row in rows}
    assert gained == pytest.approx({"more_real": 7.9, "clip_prompts": 4.8, "ft": 5.8, "retrieval": 6.8})
    assert {row["method"] for row in rows if row["kid"] is None} == {"more_real"}
    assert "too few images" in write_page(folder, plan())
    alone = exhibits(folder, plan({"retrieval": METHODS["retrieval"]}, scaling={}))["set_metrics"]
    assert alone["rows"][0]["gained"] == pytest.approx(97) and not alone["gains"]
