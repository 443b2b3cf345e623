"""Accuracy with all classes weighed alike: macro accuracy, the worst class, and classes by their training images."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from augbench.report.tables import DIGITS, mean_and_error

# Groups of classes by training images, as in Liu et al. 2019 (ImageNet-LT): the least and the most.
GROUPS = {"many": (101, None), "medium": (20, 100), "few": (0, 19)}
MEANS = ("macro", "worst", *GROUPS)
COLUMNS = ["method", "runs", "classes", "macro_mean", "macro_se", "worst_class", "worst_mean", "worst_se"]
COLUMNS += [f"{name}_{part}" for name in GROUPS for part in ("classes", "mean", "se")]


def group_of(train: int) -> str:
    """The group of a class with so many training images."""
    return next(name for name, (least, _) in GROUPS.items() if train >= least)


def is_long_tailed(train: Iterable[int]) -> bool:
    """Whether classes with so many training images are of several groups."""
    return len(set(map(group_of, train))) > 1


def table(predictions: Mapping[str, Iterable[str | Path]], train: Mapping[str, int]) -> pd.DataFrame:
    """A row per method, columns COLUMNS, of the ``predictions.parquet`` of its runs.

    Accuracies are in percent, means over the runs with standard errors, missing for a single run. Macro accuracy is the
    mean over classes, that of a group over its classes, missing where it has none; the worst class is that of the
    lowest mean, of equal ones the first by key. ``train`` : class -> training images of the target
    """
    rows = [_row(method, paths, train) for method, paths in predictions.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(method: str, paths: Iterable[str | Path], train: Mapping[str, int]) -> dict:
    runs = [pd.read_parquet(path, columns=["class", "correct"]) for path in paths]
    rates = pd.concat([100 * run.groupby("class")["correct"].mean() for run in runs], axis=1)
    worst = rates.mean(axis=1).sort_index().idxmin()
    row = {"method": method, "runs": rates.shape[1], "classes": len(rates), "worst_class": worst}
    row |= _measured("macro", rates) | _measured("worst", rates.loc[[worst]])
    groups = pd.Series([group_of(train[key]) for key in rates.index], rates.index)
    for name in GROUPS:
        mine = rates[groups == name]
        row |= {f"{name}_classes": len(mine)} | (_measured(name, mine) if len(mine) else {})
    return row


def _measured(name: str, rates: pd.DataFrame) -> dict:
    """Mean and standard error over the runs of the mean over classes; ``rates`` (classes, runs)."""
    mean, error = mean_and_error(list(rates.mean(axis=0)))
    return {f"{name}_mean": round(mean, DIGITS), f"{name}_se": None if error is None else round(error, DIGITS)}


def beside(table1: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """Table 1 with the columns of :func:`table`."""
    further = [name for name in COLUMNS if name not in ("runs", "classes")]
    return table1.merge(groups[further], on="method", validate="one_to_one")
