"""Accuracy over several draws of the target: standard errors for other training images and other runs.

The estimate is that of nested means. A run's accuracy is a mean, plus what its draw of the target adds, plus what the
run adds. The mean of a draw's runs varies by both, so the standard deviation of the draws' means over the square root
of their number holds both sources; more runs of one draw cannot replace a draw. Methods see the same draws, so that
their differences are paired by draw. Degrees of freedom are the draws minus one.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from augbench.core import files
from augbench.core.shares import shares
from augbench.report.comparison import CONFIDENCE
from augbench.report.tables import DIGITS

ACCURACY = ["draws", "runs", "accuracy_mean", "accuracy_se", "sd_draws", "sd_runs"]
DIFFERENCE = ["difference", "low", "high", "p"]
COLUMNS = ["method", *ACCURACY, *DIFFERENCE]


def nested(accuracies: np.ndarray) -> dict:
    """Mean and standard error of accuracies (draws, runs), at least two draws, as ACCURACY.

    ``sd_runs`` is the standard deviation of runs within a draw; ``sd_draws`` that of the draws' true means: the
    variance of their means without the runs' part, and 0 where that is negative. Missing of a single run per draw.
    """
    draws, runs = accuracies.shape
    means = accuracies.mean(axis=1)
    row = {"draws": draws, "runs": runs, "accuracy_mean": float(means.mean())}
    row["accuracy_se"] = float(means.std(ddof=1)) / math.sqrt(draws)
    if runs > 1:
        within = float(accuracies.var(axis=1, ddof=1).mean())
        row["sd_draws"] = math.sqrt(max(0.0, float(means.var(ddof=1)) - within / runs))
        row["sd_runs"] = math.sqrt(within)
    return row


def difference(method: np.ndarray, other: np.ndarray) -> dict:
    """The difference of two methods' accuracies (draws, runs) in percentage points as DIFFERENCE, paired by draw: a
    t-test of the differences of the draws' means, for other draws and runs on these test images."""
    from scipy.stats import t

    gaps = method.mean(axis=1) - other.mean(axis=1)
    gap, error = float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    if error < 1e-9:  # percentages that differ in their last bits count as equal
        return {"difference": gap, "low": gap, "high": gap, "p": float(abs(gap) < 1e-9)}
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(gaps) - 1)) * error
    return {
        "difference": gap,
        "low": gap - half,
        "high": gap + half,
        "p": float(2 * t.sf(abs(gap / error), len(gaps) - 1)),
    }


def table(accuracies: Mapping[str, np.ndarray], without: str | None) -> pd.DataFrame:
    """A row per method, columns COLUMNS, in percent; ``accuracies`` (draws, runs) of each. Differences are from the
    method ``without``, that trains on the target data alone."""
    rows = []
    for method, values in accuracies.items():
        row = {"method": method} | nested(values)
        if without is not None and method != without:
            row |= difference(values, accuracies[without])
        rows.append(row)
    places = dict.fromkeys(COLUMNS[3:], DIGITS) | {"p": 6}
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(places, float)).round(places)


def write(path: str | Path, methods: Sequence[str], summaries: Sequence[str], without: str | None) -> None:
    """Write :func:`table` as CSV from the summaries of each method in turn, one per draw."""
    accuracies = {
        method: np.array([files.read_json(file)["accuracies"] for file in paths])
        for method, paths in shares(methods, summaries).items()
    }
    files.write_csv(path, table(accuracies, without))
