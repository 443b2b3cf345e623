"""Accuracy, macro accuracy and calibration of classifiers on test sets: the study's own, and further ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from augbench.core import files
from augbench.core.shares import shares
from augbench.report.tables import DIGITS, mean_and_error

BINS = 15  # of equal width, as in Guo et al. 2017
MEASURES = ("accuracy", "macro", "ece")
COLUMNS = ["set", "method", "images", "classes", "runs"]
COLUMNS += [f"{name}_{part}" for name in MEASURES for part in ("mean", "se")] + ["bins"]
OWN = "test"  # the study's own test split among the sets


def write(
    path: str | Path, methods: Sequence[str], sets: Sequence[str], own: Sequence[str], further: Sequence[str]
) -> None:
    """Write a row per test set and method, columns COLUMNS, as CSV.

    ``own`` are files of predictions on the study's own test split, the runs of each method in turn; ``further`` those
    on ``sets``, of each set in turn likewise.
    """
    by_set = {OWN: own, **shares(sets, further)}
    rows = [
        row(name, method, [pd.read_parquet(file, columns=["class", "correct", "confidence"]) for file in runs])
        for name, predictions in by_set.items()
        for method, runs in shares(methods, predictions).items()
    ]
    files.write_csv(path, pd.DataFrame(rows, columns=COLUMNS))


def row(name: str, method: str, runs: Sequence[pd.DataFrame]) -> dict:
    """Means over the runs, in percent, and their standard errors, missing for a single run."""
    first = runs[0]
    measured = {"set": name, "method": method, "images": len(first), "classes": first["class"].nunique()}
    measured |= {"runs": len(runs), "bins": BINS}
    values = [measures(run) for run in runs]
    for measure in MEASURES:
        mean, error = mean_and_error([each[measure] for each in values])
        measured[f"{measure}_mean"] = round(mean, DIGITS)
        measured[f"{measure}_se"] = None if error is None else round(error, DIGITS)
    return measured


def measures(predictions: pd.DataFrame) -> Mapping[str, float]:
    """In percent: accuracy; macro accuracy, the mean over classes; and expected calibration error, see :func:`ece`.

    ``predictions`` : columns class, correct and confidence, a row per image
    """
    correct = predictions["correct"].to_numpy(bool)
    return {
        "accuracy": 100 * float(correct.mean()),
        "macro": 100 * float(predictions.groupby("class")["correct"].mean().mean()),
        "ece": 100 * ece(predictions["confidence"].to_numpy(float), correct),
    }


def ece(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error, 0 to 1 (Guo et al. 2017): of images in bins of equal width by confidence, above the
    lower edge and up to the upper one, the distance of mean confidence and accuracy, weighted by their number."""
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    sums = [np.bincount(places, weights, bins) for weights in (confidence, correct.astype(float))]
    return float(np.abs(sums[0] - sums[1]).sum() / len(correct))
