"""What methods do to each class: accuracies, improvements over the target data alone, and confusions (Figure 5A)."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench.core import files
from augbench.core.shares import shares
from augbench.report.tables import DIGITS

ACCURACIES = ["method", "class", "tested", "runs", "accuracy_mean", "accuracy_se"]
CONFUSIONS = ["method", "class", "predicted", "count", "share"]
IMPROVEMENTS = ["method", "rank", "class", "accuracy", "accuracy_without", "improvement"]
CONFUSED = 3  # wrong classes that are reported of a class and method


def write(accuracies: str, confusions: str, methods: Sequence[str], predictions: Sequence[str]) -> None:
    """Write the tables of :func:`measure` as CSV; ``predictions`` are the files of each method's runs in turn."""
    for path, table in zip((accuracies, confusions), measure(shares(methods, predictions)), strict=True):
        files.write_csv(path, table)


def measure(predictions: Mapping[str, Iterable[str | Path]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies and confusions of every class from the ``predictions.parquet`` of each method's runs.

    The first table has the columns ACCURACIES: ``tested`` images of the class in a run, mean accuracy over the runs
    and its standard error in percent (empty for a single run). The second has CONFUSIONS: the wrong classes a class
    was most often taken for, at most three, with the ``count`` over all runs and its ``share`` of the class's
    predictions in percent. Classes are sorted by key, methods in the order given.
    """
    parts = [_of_method(method, paths) for method, paths in predictions.items()]
    accuracies, confusions = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    return accuracies[ACCURACIES], confusions[CONFUSIONS]


def _of_method(method: str, paths: Iterable[str | Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    rates, wrong, tested = [], [], None
    for path in paths:
        run = pd.read_parquet(path, columns=["class", "predicted", "correct"])
        by_class = run.groupby("class")["correct"]
        rates.append(100 * by_class.mean())
        tested = by_class.size() if tested is None else tested
        wrong.append(run.loc[~run["correct"], ["class", "predicted"]].value_counts())
    rates = pd.concat(rates, axis=1)
    table = pd.DataFrame({"tested": tested, "runs": rates.shape[1], "accuracy_mean": rates.mean(axis=1)})
    table["accuracy_se"] = rates.sem(axis=1)  # pandas: sample standard deviation, NaN for a single run
    table = table.round({"accuracy_mean": DIGITS, "accuracy_se": DIGITS}).rename_axis("class").reset_index()

    counts = pd.concat(wrong).groupby(level=["class", "predicted"]).sum().rename("count").reset_index()
    counts = counts.sort_values(["class", "count", "predicted"], ascending=[True, False, True], ignore_index=True)
    counts = counts.groupby("class").head(CONFUSED).reset_index(drop=True)
    seen = counts["class"].map(tested).astype(float) * rates.shape[1]
    counts["share"] = (100 * counts["count"] / seen).round(DIGITS)
    return table.assign(method=method), counts.assign(method=method)


def improvements(accuracies: pd.DataFrame, methods: Iterable[str], without: str) -> pd.DataFrame:
    """Figure 5A as a table: each class's accuracy with a method minus that of method ``without``, percentage points.

    Columns IMPROVEMENTS; of each method the classes are ranked from the worst (0) to the best, equal ones by key.
    """
    means = accuracies.pivot(index="class", columns="method", values="accuracy_mean")
    parts = []
    for method in methods:
        part = pd.DataFrame({"accuracy": means[method], "accuracy_without": means[without]}).dropna()
        part["improvement"] = (part["accuracy"] - part["accuracy_without"]).round(DIGITS)
        part = part.reset_index().sort_values(["improvement", "class"], ignore_index=True)
        parts.append(part.assign(method=method, rank=range(len(part))))
    return pd.concat(parts, ignore_index=True)[IMPROVEMENTS] if parts else pd.DataFrame(columns=IMPROVEMENTS)
