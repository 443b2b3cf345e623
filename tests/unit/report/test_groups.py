"""Macro accuracy, the worst class, and classes by their training images, against hand-worked cases."""

import pandas as pd
import pytest
from made_report import files_of, make_results, plan, results, section

from augbench.core import files
from augbench.report import comparison, groups
from augbench.report.tables import COLUMNS


@pytest.mark.parametrize(
    ("train", "expected"),
    [(101, "many"), (1300, "many"), (100, "medium"), (20, "medium"), (19, "few"), (1, "few"), (0, "few")],
)
def test_groups_are_those_of_long_tailed_imagenet(train, expected):
    assert groups.group_of(train) == expected


def test_a_target_is_long_tailed_whose_classes_are_of_several_groups():
    assert groups.is_long_tailed([150, 30])
    assert not groups.is_long_tailed([30, 99])
    assert not groups.is_long_tailed([11, 11, 12])


TRAIN = {"a": 200, "b": 120, "c": 50, "d": 5}
HITS = {  # class -> of its two images, those that each of two runs recognises
    "a": ([1, 1], [1, 1]),
    "b": ([1, 0], [1, 1]),
    "c": ([0, 0], [1, 0]),
    "d": ([0, 0], [1, 0]),
}


def predictions(folder) -> list[str]:
    paths = []
    for k in (0, 1):
        rows = [(key, bool(hit)) for key, runs in HITS.items() for hit in runs[k]]
        rows = rows[::-1] + [("a", True), ("a", True)] * (k + 1)  # of a class with more images, which weighs no more
        run = pd.DataFrame(rows, columns=["class", "correct"])
        paths.append(str(folder / f"{k}.parquet"))
        run.assign(image_id=[str(i) for i in range(len(run))]).to_parquet(paths[-1])
    return paths


def test_accuracies_by_hand(tmp_path):
    """Of a, b, c and d the runs recognise 100, 50, 0, 0 and 100, 100, 50, 50 percent."""
    (row,) = groups.table({"none": predictions(tmp_path)}, TRAIN).to_dict("records")
    assert row == {
        "method": "none",
        "runs": 2,
        "classes": 4,
        "macro_mean": 56.25,  # of 37.5 and 75: they are 37.5 apart, so the error is half of that
        "macro_se": 18.75,
        "worst_class": "c",
        "worst_mean": 25.0,
        "worst_se": 25.0,
        "many_classes": 2,
        "many_mean": 87.5,
        "many_se": 12.5,
        "medium_classes": 1,
        "medium_mean": 25.0,
        "medium_se": 25.0,
        "few_classes": 1,
        "few_mean": 25.0,
        "few_se": 25.0,
    }


def test_a_group_without_classes_and_a_single_run_are_missing(tmp_path):
    (row,) = groups.table({"none": predictions(tmp_path)[:1]}, dict.fromkeys(TRAIN, 7)).to_dict("records")
    assert (row["few_mean"], row["few_classes"], row["many_classes"]) == (37.5, 4, 0)
    assert pd.isna(row["many_mean"]) and pd.isna(row["macro_se"])


@pytest.mark.parametrize(("train", "more"), [(TRAIN, True), (dict.fromkeys(TRAIN, 30), False)])
def test_table_1_has_them_where_the_target_is_long_tailed(tmp_path, train, more):
    folder = make_results(tmp_path / "digits")
    runs = predictions(tmp_path)
    runs[1] = runs[0]
    names = ("table1", "scaling", "groups", "differences")
    outputs = {name: str(tmp_path / f"{name}.csv") for name in names}
    summaries, paper = files_of(folder, plan())["summaries"], files_of(folder, plan())["paper_results"]
    comparison.write_tables(outputs, [summaries["none"]], runs, train, paper, ["none"], None)
    found = list(pd.read_csv(outputs["table1"]).columns)
    further = [name for name in groups.COLUMNS if name not in ("method", "runs", "classes")]
    assert found == COLUMNS + (further if more else [])
    assert list(pd.read_csv(outputs["groups"]).columns) == groups.COLUMNS


def test_the_report_shows_them(tmp_path):
    folder = make_results(tmp_path / "digits")
    alike = section(results(folder, plan()), "table1", "groups")
    assert "Table of macro accuracy" in alike and "long-tailed" not in alike and "Medium" not in alike
    path = folder / "dataset" / "classes.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False).assign(train=[200, 50, 0])
    files.write_csv(path, table)
    train = dict(zip(table["class"], [200, 50, 0], strict=True))
    runs = {m: sorted((folder / "classifier" / m).glob("*/run-*/predictions.parquet")) for m in plan().methods}
    macro = groups.table(runs, train)
    files.write_csv(folder / "tables" / "groups.csv", macro)
    first = pd.read_csv(folder / "tables" / "table1.csv")
    files.write_csv(folder / "tables" / "table1.csv", groups.beside(first, macro))
    shown = section(results(folder, plan()), "table1", "groups")
    assert "many, 1 class with more than 100 training images; medium, 1 class with 20 to 100" in shown
    assert "Table of macro accuracy" not in shown
    assert ">Many<" in shown and ">Medium<" in shown and ">Few<" not in shown
