import pandas as pd
import pytest

from augbench.summary import COLUMNS, SCALING, mean_and_error, scaling, summarise, table1


def runs(*accuracies, tested=100, classes=5):
    return [{"accuracy": value, "n_test": tested, "n_classes": classes} for value in accuracies]


ROW = {"title": "CLIP prompts", "family": "prompting", "start": "noise"}


def test_mean_and_standard_error_worked_by_hand():
    # squared deviations of 1, 2, 3, 4, 5 from 3 sum to 10; sqrt(10 / 4 / 5) = sqrt(0.5)
    mean, error = mean_and_error([1, 2, 3, 4, 5])
    assert mean == 3
    assert error == pytest.approx(0.5**0.5)
    assert mean_and_error([7]) == (7, None)


def test_summary_holds_every_run_and_the_audit():
    audit = {"added": 10, "radius": 10, "references": {}}
    found = summarise("clip_prompts", ROW, {1.0: runs(60, 62.0)}, audit, 100)
    assert found == {
        "method": "clip_prompts",
        "title": "CLIP prompts",
        "family": "prompting",
        "ratio": 1.0,
        "runs": 2,
        "accuracies": [60.0, 62.0],
        "accuracy_mean": 61.0,
        "accuracy_se": 1.0,
        "added_images": 10,
        "audit": audit,
        "scaling": [dict(zip(SCALING, ["clip_prompts", 1.0, 2, 5, 61.0, 1.0, 61.0, 61.0], strict=True))],
    }


def test_classes_that_are_left_out_count_as_all_wrong_or_all_right():
    """80 of 100 test images are of the classes that stay: 50% of them are 40% of all, 60% if the others are right."""
    metrics = {1.0: runs(60), 10.0: runs(45, 55, tested=80, classes=4)}
    table = scaling([summarise("retrieval", ROW, metrics, None, 100)])
    assert list(table["ratio"]) == [1.0, 10.0]
    assert list(table["classes"]) == [5, 4]
    assert list(table["accuracy_mean"]) == [60, 50]
    assert list(table["accuracy_worst"]) == [60, 40]
    assert list(table["accuracy_best"]) == [60, 60]


def test_one_run_has_no_error_and_none_is_an_error():
    found = summarise("none", ROW, {0.0: runs(50.0)}, None, 100)
    assert (found["accuracy_se"], found["added_images"], found["audit"]) == (None, 0, None)
    with pytest.raises(ValueError, match="none: there is no classifier run"):
        summarise("none", ROW, {0.0: []}, None, 100)


def test_table1_keeps_the_order_and_leaves_unknown_figures_empty():
    paper = pd.read_csv("resources/paper_results.csv")
    three = runs(60.0, 60.1, 60.3)
    summaries = [
        summarise("new_method", ROW, {1.0: three[:1]}, None, 100),
        summarise("none", {"title": "None", "family": "baseline"}, {0.0: three}, None, 100),
    ]
    table = table1(summaries, paper)
    assert list(table) == COLUMNS
    assert list(table["method"]) == ["new_method", "none"]
    assert list(table["ratio"]) == [1, 0]
    assert table["accuracy_mean"][1] == 60.1333
    assert table["accuracy_se"][1] == 0.0882
    assert table["paper_accuracy"][1] == 57.2
    assert table[["accuracy_se", "paper_accuracy"]].iloc[0].isna().all()


def test_the_papers_table_is_complete():
    paper = pd.read_csv("resources/paper_results.csv", keep_default_na=False, index_col="method")
    assert list(paper) == ["accuracy", "se", "source"]
    assert paper.index.is_unique
    assert len(paper) == 15
    assert paper.loc["retrieval", "accuracy"] == 62.6
