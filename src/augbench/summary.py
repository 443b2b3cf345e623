"""Sums up the runs of a method, and all methods as Table 1: what a study is done for, in plain numbers."""

import math
import statistics
from collections.abc import Mapping, Sequence

import pandas as pd

COLUMNS = ["method", "family", "ratio", "runs", "accuracy_mean", "accuracy_se", "paper_accuracy"]
SCALING = ["method", "ratio", "runs", "classes", "accuracy_mean", "accuracy_se", "accuracy_worst", "accuracy_best"]
DIGITS = 4  # decimal places of means and standard errors in percent


def summarise(
    method: str, row: Mapping, metrics: Mapping[float, Sequence[Mapping]], audit: Mapping | None, tested: int
) -> dict:
    """The summary of one method, at its main augmentation ratio and, as ``scaling``, at each.

    Parameters
    ----------
    row : the method's row of the method table; ``title`` and ``family`` are used
    metrics : ratio (added images per class / training images per class; the main one first) -> one mapping per
        classifier run, with accuracy in percent, n_test and n_classes
    audit : summary of the duplicate audit, or None for a method that adds nothing
    tested : images of the test split; a run may have had fewer, when retrieval left classes out at its ratio

    Returns method, title, family, ratio, runs, accuracies (percent, in the order of the runs),
    accuracy_mean and accuracy_se (percent; the standard error is the sample standard deviation over
    sqrt(runs), None for a single run), added_images (distinct images over all runs), audit, and scaling:
    one mapping of SCALING per ratio, where worst and best are the mean accuracy if all images of the classes
    that were left out counted as wrong, or as right (paper, Figure 5B). Raises ValueError when there is no run.
    """
    if not metrics or not all(metrics.values()):
        raise ValueError(f"{method}: there is no classifier run to sum up")
    ratio, runs = next(iter(metrics.items()))
    accuracies = [float(run["accuracy"]) for run in runs]
    mean, error = mean_and_error(accuracies)
    return {
        "method": method,
        "title": row["title"],
        "family": row["family"],
        "ratio": ratio,
        "runs": len(accuracies),
        "accuracies": accuracies,
        "accuracy_mean": round(mean, DIGITS),
        "accuracy_se": None if error is None else round(error, DIGITS),
        "added_images": audit["added"] if audit else 0,
        "audit": dict(audit) if audit else None,
        "scaling": [_at_ratio(method, ratio, runs, tested) for ratio, runs in metrics.items()],
    }


def _at_ratio(method: str, ratio: float, runs: Sequence[Mapping], tested: int) -> dict:
    mean, error = mean_and_error([float(run["accuracy"]) for run in runs])
    known = runs[0]["n_test"] / tested
    facts = {"accuracy_mean": mean, "accuracy_worst": known * mean, "accuracy_best": known * mean + 100 * (1 - known)}
    rounded = {key: round(value, DIGITS) for key, value in facts.items()}
    rounded["accuracy_se"] = None if error is None else round(error, DIGITS)
    about = {"method": method, "ratio": ratio, "runs": len(runs), "classes": runs[0]["n_classes"]}
    return {key: (about | rounded)[key] for key in SCALING}


def scaling(summaries: Sequence[Mapping]) -> pd.DataFrame:
    """Figure 5B as a table: each method at each ratio, columns SCALING."""
    return pd.DataFrame([row for summary in summaries for row in summary["scaling"]], columns=SCALING)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error, in the unit of the values; no error for a single value."""
    if len(values) < 2:
        return statistics.fmean(values), None
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def table1(summaries: Sequence[Mapping], paper: pd.DataFrame) -> pd.DataFrame:
    """Table 1: one row per summary, in their order, beside the paper's figures for 10% ImageNet.

    ``paper`` has the columns method and accuracy (percent). Returns ``COLUMNS``; accuracies are in percent,
    empty where there is none: ``accuracy_se`` of a single run, ``paper_accuracy`` of a new method.
    """
    published = dict(zip(paper["method"], paper["accuracy"].astype(float), strict=True))
    rows = [
        {key: summary[key] for key in COLUMNS[:-1]} | {"paper_accuracy": published.get(summary["method"])}
        for summary in summaries
    ]
    numbers = ["accuracy_mean", "accuracy_se", "paper_accuracy"]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype(dict.fromkeys(numbers, float)).round(dict.fromkeys(numbers, DIGITS))
