from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from augbench.core import package_data
from augbench.report.plan import Plan
from augbench.report.tables import (
    COLUMNS,
    SCALING,
    compare_sets,
    mean_and_error,
    published,
    scaling,
    summarise,
    table1,
)
from augbench.study import config


def runs(*accuracies, tested=100, classes=5, trained=120, epochs=4):
    about = {"n_test": tested, "n_classes": classes, "n_train": trained, "epochs": epochs, "at_cap": epochs == 4}
    about |= {"steps": 16, "images_seen": epochs * trained}
    return [about | {"accuracy": value, "best_validation_accuracy": value - 1} for value in accuracies]


def summed(method, row, metrics, sets=None, audit=None, tested=100):
    sets = sets or {ratio: [] for ratio in metrics}
    return summarise(method, row, metrics, sets, audit, train=60, tested=tested)


PAPER = pd.read_csv(package_data.bundled("paper_results.csv"))
ROW = {"title": "CLIP prompts", "family": "prompting", "start": "noise"}


def test_mean_and_standard_error_worked_by_hand():
    # squared deviations of 1, 2, 3, 4, 5 from 3 sum to 10; sqrt(10 / 4 / 5) = sqrt(0.5)
    mean, error = mean_and_error([1, 2, 3, 4, 5])
    assert mean == 3
    assert error == pytest.approx(0.5**0.5)
    assert mean_and_error([7]) == (7, None)


def test_summary_holds_every_run_and_the_audit():
    audit = {"added": 10, "radius": 10, "references": {}}
    sets = {1.0: [[f"a{i}" for i in range(60)], [f"a{i}" for i in range(15, 75)]]}
    found = summed("clip_prompts", ROW, {1.0: runs(60, 62.0)}, sets, audit)
    assert found == {
        "method": "clip_prompts",
        "title": "CLIP prompts",
        "family": "prompting",
        "start": "noise",
        "augment": None,
        "asked_ratio": 1.0,
        "ratio": 1.0,
        "sets": 2,
        "runs": 2,
        "accuracies": [60.0, 62.0],
        "accuracy_mean": 61.0,
        "accuracy_se": 1.0,
        "validation_mean": 60.0,
        "epochs": 4,
        "at_cap": 2,
        "steps": 16,
        "images_seen": 480,
        "added_images": 10,
        "audit": audit,
        "scaling": [dict(zip(SCALING, ["clip_prompts", 1.0, 2, 5, 60, 2, 0.75, 61.0, 1.0, 61.0, 61.0], strict=True))],
    }


def test_the_ratio_is_that_of_the_images_that_were_really_added():
    """Ten further real images are left to add to sixty: a sixth, whatever was asked for."""
    found = summed("more_real", ROW, {1.0: runs(60, trained=70)}, {1.0: [[str(i) for i in range(10)]]})
    assert (found["asked_ratio"], found["ratio"]) == (1.0, 0.1667)
    assert table1([found], published(PAPER, "imagenet10"))["ratio"][0] == 0.1667


def test_overlap_is_that_of_drawing_from_a_finite_store():
    """Sets of 130 of 390 images share a third on average; of 390 of 390, everything: brute force over pairs."""
    random = np.random.default_rng(0)
    for size in (130, 200, 390):
        sets = [list(map(str, random.permutation(390)[:size])) for _ in range(5)]
        found = compare_sets(sets)
        shared = [len(set(one) & set(two)) / size for i, one in enumerate(sets) for two in sets[:i]]
        assert found["overlap"] == pytest.approx(np.mean(shared))
        assert found["overlap"] == pytest.approx(size / 390, abs=0.05)
        assert (found["added"], found["sets"]) == (size, 1 if size == 390 else 5)
    assert compare_sets([["a"]]) == {"added": 1, "sets": 1, "overlap": None}
    assert compare_sets([[], []]) == {"added": 0, "sets": 0, "overlap": None}


def test_classes_that_are_left_out_count_as_all_wrong_or_all_right():
    """80 of 100 test images are of the classes that stay: 50% of them are 40% of all, 60% if the others are right."""
    metrics = {1.0: runs(60), 10.0: runs(45, 55, tested=80, classes=4)}
    table = scaling([summed("retrieval", ROW, metrics)])
    assert list(table["ratio"]) == [1.0, 10.0]
    assert list(table["classes"]) == [5, 4]
    assert list(table["accuracy_mean"]) == [60, 50]
    assert list(table["accuracy_worst"]) == [60, 40]
    assert list(table["accuracy_best"]) == [60, 60]


def test_one_run_has_no_error_and_none_is_an_error():
    found = summed("none", ROW, {0.0: runs(50.0)})
    assert (found["accuracy_se"], found["added_images"], found["audit"]) == (None, 0, None)
    with pytest.raises(ValueError, match="none: there is no classifier run"):
        summed("none", ROW, {0.0: []})


def test_table1_keeps_the_order_and_leaves_unknown_figures_empty():
    three = runs(60.0, 60.1, 60.3)
    summaries = [
        summed("new_method", ROW, {1.0: three[:1]}, {1.0: [[str(i) for i in range(60)]]}),
        summed("none", {"title": "None", "family": "baseline", "start": "none"}, {0.0: three}),
    ]
    table = table1(summaries, published(PAPER, "imagenet10"))
    assert list(table) == COLUMNS
    assert list(table["method"]) == ["new_method", "none"]
    assert list(table["ratio"]) == [1, 0]
    assert table["accuracy_mean"][1] == 60.1333
    assert table["accuracy_se"][1] == 0.0882
    assert (table["paper_accuracy"][1], table["paper_se"][1]) == (57.2, 0.2)
    assert table[["accuracy_se", "paper_accuracy", "paper_se"]].iloc[0].isna().all()


def test_the_papers_tables_are_complete():
    """Every figure of Table 1, section 4.4 and the two other data sets of section 4.5, as the paper prints them."""
    assert not PAPER.duplicated(["dataset", "method"]).any()
    figures = {
        dataset: dict(zip(rows["method"], zip(rows["accuracy"], rows["se"], strict=True), strict=True))
        for dataset, rows in PAPER.astype({"se": object}).where(PAPER.notna(), None).groupby("dataset")
    }
    assert len(figures["imagenet10"]) == 15
    assert figures["imagenet10"]["retrieval"] == (62.6, 0.1)
    assert figures["imagenet10"]["pseudoword_dm"] == (61.2, 0.2)
    assert figures["imagenet"] == {
        "none": (76.1, None),
        "azizi_et_al": (78.17, None),
        "clip_prompts": (78.7, 0.1),
        "pseudoword_dm": (78.8, 0.2),
        "retrieval": (79.0, 0.2),
    }
    assert figures["caltech256"] == {
        "none": (59.3, 0.7),
        "clip_prompts": (68.2, 0.2),
        "pseudoword_dm": (68.1, 0.3),
        "retrieval": (68.4, 0.4),
    }


def test_each_of_the_papers_studies_has_its_own_figures():
    raw = {name: yaml.safe_load(Path(f"config/{name}.yaml").read_text()) for name in ("methods", "paper", "config")}
    studies = config.parse(raw["methods"] | raw["paper"]).studies
    for name, accuracy in {"imagenet10": 61.2, "imagenet": 78.8, "caltech256": 68.1}.items():
        assert Plan(name, studies[name], {}).dataset == name
        summary = summed("pseudoword_dm", ROW, {1.0: runs(60.0)})
        assert table1([summary], published(PAPER, name))["paper_accuracy"][0] == accuracy
    assert Plan("digits", config.parse(raw["methods"] | raw["config"]).studies["digits"], {}).dataset is None
