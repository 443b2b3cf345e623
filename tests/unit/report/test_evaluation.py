"""Accuracy, macro accuracy and calibration on test sets, against hand-worked cases."""

import numpy as np
import pandas as pd
import pytest
from made_report import make_results, plan, results, section

from augbench.core import files
from augbench.report import evaluation
from augbench.report.exhibits.evaluation import by_set
from augbench.report.study_options import facts


def scored(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_calibration_error_by_hand():
    """In bins of a tenth: 0.95 and 0.95, one right: |1.9 - 1|; 0.55 and 0.6, an upper edge, both right: |1.15 - 2|."""
    confidence, correct = np.array([0.95, 0.95, 0.55, 0.6]), np.array([True, False, True, True])
    assert evaluation.ece(confidence, correct, bins=10) == pytest.approx((0.9 + 0.85) / 4)
    assert evaluation.ece(np.array([1.0, 1.0]), np.array([True, True])) == 0
    assert evaluation.ece(np.array([1.0, 1.0]), np.array([False, False])) == 1


def test_macro_accuracy_weighs_classes_alike():
    """Three of four images of a, none of b's one."""
    run = scored(**{"class": list("aaaab"), "correct": [True, True, True, False, False], "confidence": 5 * [1.0]})
    assert evaluation.measures(run) == {"accuracy": 60.0, "macro": 37.5, "ece": pytest.approx(40.0)}


def test_a_row_for_each_set_and_method(tmp_path):
    paths, right = [], {"1": [True, True], "2": [True, False]}  # of two runs
    for name in ("own-a", "own-b", "new-a", "new-b"):
        for k in right:
            path = tmp_path / f"{name}-{k}.parquet"
            correct = [False, False] if name == "new-b" else right[k]
            scored(**{"class": ["x", "y"], "correct": correct, "confidence": [1.0, 1.0]}).to_parquet(path)
            paths.append(path)
    evaluation.write(tmp_path / "evaluation.csv", ["a", "b"], ["new"], paths[:4], paths[4:])
    table = pd.read_csv(tmp_path / "evaluation.csv")
    assert list(table.columns) == evaluation.COLUMNS
    found = table.set_index(["set", "method"])
    assert list(found.index) == [("test", "a"), ("test", "b"), ("new", "a"), ("new", "b")]
    # 100 and 50 percent: a mean of 75, a standard deviation of 35.36 / sqrt(2)
    assert found.loc[("new", "a"), ["accuracy_mean", "accuracy_se"]].tolist() == [75.0, 25.0]
    assert found.loc[("new", "b"), ["accuracy_mean", "accuracy_se", "ece_mean"]].tolist() == [0.0, 0.0, 100.0]
    assert set(table["bins"]) == {15} and set(table["runs"]) == {2}


def test_the_report_shows_them(tmp_path):
    folder = make_results(tmp_path / "digits")
    study = plan(evaluate={"sketch": {"path": "data/sketch"}})
    runs = [scored(**{"class": ["x"], "correct": [True], "confidence": [0.9]})] * 2
    rows = [evaluation.row(name, method, runs) for name in ("test", "sketch") for method in study.methods]
    path = folder / "tables" / "evaluation.csv"
    files.write_csv(path, pd.DataFrame(rows, columns=evaluation.COLUMNS))
    html = section(results(folder, study, evaluation=str(path)), "evaluation")
    assert "Further test sets" in html and "sketch<br>1 images, 1 classes" in html and "own test split" in html
    assert "15 bins of equal width" in html and html.count("10.0 ± 0.00") == 2 * len(study.methods)


def test_the_audit_of_further_test_sets_is_shown_and_speaks_against_a_method(tmp_path):
    """Two of five images of a further set may be among the retrieved ones."""
    folder = make_results(tmp_path / "digits")
    study = plan(evaluate={"sketch": {"path": "data/sketch"}})
    summary = files.read_json(folder / "audit" / "retrieval" / "summary.json")
    found = {"images": 5, "pairs": 3, "added_images_with_candidate": 3, "reference_images_with_candidate": 2}
    summary["references"]["sketch"] = found | {"share": 0.4}
    files.write_json(folder / "audit" / "retrieval" / "summary.json", summary)
    row = {"images": 5, "classes": 2, "runs": 3, "bins": 15}
    row |= {f"{name}_{part}": 50.0 for name in evaluation.MEASURES for part in ("mean", "se")}
    rows = [row | {"set": name, "method": method} for name in ("test", "sketch") for method in study.methods]
    path = folder / "tables" / "evaluation.csv"
    files.write_csv(path, pd.DataFrame(rows, columns=evaluation.COLUMNS))
    read = results(folder, study, evaluation=str(path))
    own, sketch = by_set(read)
    assert {row["method"]: row["resembling"] for row in sketch["rows"] if row["resembling"]} == {"retrieval": 40.0}
    resembling = {row["method"]: row["resembling"] for row in own["rows"]}
    assert resembling["none"] is None and resembling["retrieval"] == 10.0  # one test image of ten
    html = section(read, "evaluation", "audit")
    assert '<td class="number">40.00%</td>' in html and "<td>sketch</td>" in html
    by_method = {each.method: each for each in facts(read).options}
    assert by_method["retrieval"].further_leaks == (("sketch", 40.0),) and by_method["ft"].further_leaks == ()
