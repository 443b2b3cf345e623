"""Crosses methods and classifiers: whether what a method adds helps other networks, or pretrained ones, too."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from augbench.core import files
from augbench.core.shares import shares
from augbench.report.comparison import difference, holm, read_hits, scores
from augbench.report.tables import DIGITS, mean_and_error

NUMBERS = ["accuracy_mean", "accuracy_se", "difference", "low", "high", "p", "p_holm"]
FACTS = ["model", "weights", "revision", "sha256", "licence"]
COLUMNS = ["classifier", "method", "runs", *NUMBERS, *FACTS]


def write(
    path: str | Path,
    classifiers: Sequence[str],
    methods: Sequence[str],
    without: str | None,
    *,
    metrics: Sequence[str],
    predictions: Sequence[str],
) -> None:
    """Write :func:`cross` from the files of all runs: classifier by classifier, of each method by method."""
    runs = {
        classifier: shares(methods, [files.read_json(file) for file in each])
        for classifier, each in shares(classifiers, metrics).items()
    }
    hits = {
        classifier: read_hits(shares(methods, each)) for classifier, each in shares(classifiers, predictions).items()
    }
    files.write_csv(path, cross(runs, hits, without))


def cross(
    runs: Mapping[str, Mapping[str, Sequence[Mapping]]],
    hits: Mapping[str, Mapping[str, np.ndarray]],
    without: str | None,
) -> pd.DataFrame:
    """A row per classifier and method, columns COLUMNS.

    ``runs`` are what the runs of a classifier and method wrote, ``hits`` which of them recognised which test image, as
    :func:`augbench.report.comparison.read_hits` gives it. ``difference`` (percentage points, with its 95% interval
    from ``low`` to ``high`` and its ``p``) is to the same classifier on the target alone, the method ``without``, and
    missing where there is none; ``p_holm`` is corrected for the methods of the classifier. The weights that training
    began with are those of the first run.
    """
    rows = []
    for classifier, by_method in runs.items():
        known = {method: scores(each) for method, each in hits[classifier].items()}
        mine = []
        for method, of_runs in by_method.items():
            mean, error = mean_and_error([float(run["accuracy"]) for run in of_runs])
            row = {"classifier": classifier, "method": method, "runs": len(of_runs)}
            row |= {"accuracy_mean": mean, "accuracy_se": error} | _origin(of_runs[0])
            if without is not None and method != without:
                row |= difference(known[method], known[without])
            mine.append(row)
        tested = [row for row in mine if "p" in row]
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_holm"] = p
        rows += mine
    table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(NUMBERS, float))
    return table.round(dict.fromkeys(NUMBERS[:5], DIGITS) | dict.fromkeys(NUMBERS[5:], 6))


def _origin(run: Mapping) -> dict:
    """A run's network, and where pretrained weights come from; ``weights`` is empty without any."""
    weights = run.get("weights") or {"name": None, "revision": None, "sha256": None, "licence": None}
    named = {key: weights[key] for key in ("revision", "sha256", "licence")}
    return {"model": run["model"], "weights": weights["name"]} | named
