"""The table that crosses methods and classifiers, and how the report shows it."""

import numpy as np
import pandas as pd
import pytest
from made_report import EVIL, METHODS, make_results, plan, results, section

from augbench.core.files import BadInput, write_csv, write_json
from augbench.report import catalogue, classifiers, comparison
from augbench.report.exhibits import classifiers as shown_classifiers

WEIGHTS = {"name": "timm/x", "revision": "12345678", "sha256": "ab" * 32, "licence": EVIL}
LEVELS = {"main": {"none": 50, "retrieval": 80}, "probe": {"none": 90, "retrieval": 90}}  # of 100 images
RUNS = 3


@pytest.fixture
def measured(tmp_path):
    """Files of runs: with the first classifier retrieval recognises 30 more images, with the second the same."""
    metrics, predictions = [], []
    for classifier, levels in LEVELS.items():
        for method, level in levels.items():
            for k in range(RUNS):
                place = tmp_path / classifier / method / str(k)
                hits = np.roll(np.arange(100) < level, k)
                facts = {"accuracy": 100 * hits.mean(), "model": classifier.upper()}
                facts |= {"weights": WEIGHTS} if classifier == "probe" else {}
                write_json(place / "metrics.json", facts)
                table = pd.DataFrame({"image_id": [f"{i}" for i in range(100)], "correct": hits})
                table.to_parquet(place / "predictions.parquet")
                metrics.append(place / "metrics.json")
                predictions.append(place / "predictions.parquet")
    return {"metrics": metrics, "predictions": predictions}


def test_each_classifier_has_its_own_baseline(tmp_path, measured):
    classifiers.write(tmp_path / "table.csv", list(LEVELS), ["none", "retrieval"], "none", **measured)
    table = pd.read_csv(tmp_path / "table.csv", dtype={"revision": str})
    assert list(table.columns) == classifiers.COLUMNS
    assert list(table["accuracy_mean"]) == [50, 80, 90, 90]
    assert list(table["accuracy_se"]) == [0, 0, 0, 0]
    assert list(table["difference"].fillna(-1)) == [-1, 30, -1, 0]
    main, probe = table.iloc[1], table.iloc[3]
    assert main["low"] < 30 < main["high"] and main["p_holm"] == main["p"] < 0.001
    assert probe["low"] < 0 < probe["high"] or probe["low"] == probe["high"] == 0
    assert (probe["weights"], probe["revision"], probe["sha256"]) == ("timm/x", "12345678", "ab" * 32)
    assert table["weights"].isna().tolist() == [True, True, False, False]


def test_differences_are_those_of_the_studys_table(tmp_path, measured):
    """Of one classifier alone it says the same as the table of differences."""
    runs = {"none": measured["predictions"][:RUNS], "retrieval": measured["predictions"][RUNS : 2 * RUNS]}
    hits = comparison.read_hits(runs)
    theirs = comparison.difference(*(comparison.scores(hits[name]) for name in ("retrieval", "none")))
    facts = {"accuracy": 1.0, "model": "x"}
    mine = classifiers.cross({"main": dict.fromkeys(runs, [facts] * RUNS)}, {"main": hits}, "none").iloc[1]
    assert [mine[key] for key in ("difference", "low", "high")] == pytest.approx(
        [theirs[key] for key in ("difference", "low", "high")], abs=1e-4
    )


def test_p_values_are_corrected_within_a_classifier(monkeypatch):
    values = iter([0.01, 0.04, 0.03, 0.5])
    monkeypatch.setattr(classifiers, "scores", lambda hits: None)
    monkeypatch.setattr(classifiers, "difference", lambda one, two: {"difference": 1.0, "p": next(values)})
    runs = {name: {key: [{"accuracy": 1.0, "model": "x"}] for key in "nab"} for name in ("main", "probe")}
    table = classifiers.cross(runs, {name: dict.fromkeys("nab") for name in runs}, "n")
    assert table["p_holm"].dropna().tolist() == pytest.approx([0.02, 0.04, 0.06, 0.5])


def test_a_study_without_a_baseline_has_accuracies_alone(tmp_path, measured):
    classifiers.write(tmp_path / "table.csv", list(LEVELS), ["none", "retrieval"], None, **measured)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["difference"].isna().all() and list(table["accuracy_mean"]) == [50, 80, 90, 90]


@pytest.fixture
def shown(tmp_path, measured):
    """The section of a study whose methods are none and retrieval."""
    folder = make_results(tmp_path / "study")
    classifiers.write(folder / "tables" / "classifiers.csv", list(LEVELS), ["none", "retrieval"], "none", **measured)
    rows = {key: METHODS[key] for key in ("none", "retrieval")}
    further = {"probe": {"model": "timm/x", "weights": "pretrained", "train": "probe"}}
    study = plan(rows, classifiers=further, scaling={})
    return results(folder, study, classifiers=str(folder / "tables" / "classifiers.csv"))


def test_the_report_crosses_methods_and_classifiers(shown):
    html = section(shown, "classifiers")
    assert "main: the one method that adds images helps; retrieval helps (Retrieval: +30.0 points, 95% " in html
    assert "retrieval is not seen to help (Retrieval: +0.0 points" in html
    assert "<b>+30.0</b>" in html and "<b>+0.0</b>" not in html
    assert "ab" * 32 in html and "revision 12345678" in html
    assert EVIL not in html and "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("helping", "all", "words"),
    [
        (0, 3, "none of the 3 methods that add images helps"),
        (1, 3, "1 of the 3 methods that add images helps"),
        (2, 3, "2 of the 3 methods that add images help"),
        (0, 1, "the one method that adds images is not seen to help"),
    ],
)
def test_methods_that_help_are_counted_in_words(helping, all, words):
    assert shown_classifiers._counted(helping, all) == words


def test_a_table_that_is_missing_is_an_error(shown, tmp_path):
    (tmp_path / "study" / "tables" / "classifiers.csv").unlink()
    with pytest.raises(BadInput, match="tables/classifiers.csv, which is missing"):
        section(shown, "classifiers")


def test_one_classifier_from_scratch_has_no_such_section():
    entry = next(exhibit for exhibit in catalogue.EXHIBITS if exhibit.name == "classifiers")
    pretrained = {"model": "timm/x", "weights": "pretrained"}
    assert [entry.applies(plan(**sections)) for sections in ({}, {"classifier": pretrained})] == [False, True]
    assert entry.applies(plan(classifiers={"other": {"model": "resnet18"}}))


def test_the_curves_of_a_probe_go_over_strengths_of_regularisation(tmp_path):
    folder = make_results(tmp_path / "study")
    for file in (folder / "classifier").rglob("history.csv"):
        write_csv(file, pd.DataFrame({"log10_C": [-3.0, -2.5], "validation_accuracy": [50.0, 60.0]}))
    probe = {"model": "timm/x", "weights": "pretrained", "train": "probe"}
    html = section(results(folder, plan(classifier=probe)), "training", "table1")
    assert "Validation accuracy over the inverse strength of regularisation, log10(C), one line per run." in html
    assert "a logistic regression on features of the same pretrained network" in html
