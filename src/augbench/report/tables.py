"""Sums up the runs of a method, and all methods as Table 1: the numbers for which a study is run."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from augbench import images
from augbench.core import files
from augbench.core.shares import shares

COLUMNS = ["method", "family", "ratio", "sets", "runs", "accuracy_mean", "accuracy_se", "epochs", "steps"]
COLUMNS += ["images_seen", "paper_accuracy", "paper_se"]
SCALING = ["method", "ratio", "runs", "classes", "added", "sets", "overlap", "accuracy_mean", "accuracy_se"]
SCALING += ["accuracy_worst", "accuracy_best"]
OTHER_DATASET = "imagenet10"  # whose figures stand beside those of a study of other data
DIGITS = 4  # decimal places of means and standard errors in percent


def write_summary(
    path: str | Path,
    method: str,
    row: Mapping,
    ratios: Sequence[float],
    *,
    metrics: Sequence[str],
    added: Sequence[str],
    train: str,
    test: str,
    audit: str | Sequence[str],
) -> None:
    """Write :func:`summarise` of a method as JSON, from files.

    These are the ``metrics`` of its classifier runs and tables of the sets that they ``added`` (none for a method that
    adds nothing), ratio by ratio; image tables of the training and the test split; and the summary of its audit (empty
    without one).
    """
    _, sets = images.read_distinct(*added, columns=["image_id"])
    summary = summarise(
        method,
        row,
        shares(ratios, [files.read_json(file) for file in metrics]),
        shares(ratios, sets),
        files.read_json(audit) if audit else None,
        train=images.count(train),
        tested=images.count(test),
    )
    files.write_json(path, summary)


def summarise(
    method: str,
    row: Mapping,
    metrics: Mapping[float, Sequence[Mapping]],
    sets: Mapping[float, Sequence[Sequence]],
    audit: Mapping | None,
    *,
    train: int,
    tested: int,
) -> dict:
    """The summary of one method, at its main augmentation ratio and, as ``scaling``, at each.

    Parameters
    ----------
    row : the method's row of the method table; ``title``, ``family``, ``start`` and ``augment`` are used
    metrics : ratio that was asked for (added images per class / training images per class; the main one first) ->
        what each classifier run wrote: accuracy and best_validation_accuracy (percent), epochs, steps, n_test, ...
    sets : ratio -> the images that each run added, as ids or numbers; none for a method that adds nothing
    audit : summary of the duplicate audit, or None for a method that adds nothing
    train, tested : images of the training and of the test split; a run may have had fewer, when retrieval left
        classes out at its ratio

    Returns method, title, family, start, augment; asked_ratio, and ratio, that of the images that were really added
    (fewer where too few further real images are left); sets, how many different sets the runs added; runs, accuracies
    (percent, in the order of the runs), accuracy_mean and accuracy_se (percent; sample standard deviation / sqrt(runs),
    None for a single run), validation_mean (percent); epochs, steps and images_seen, means over the runs; at_cap, runs
    that the maximum number of epochs ended; added_images (distinct, over all runs), audit, and scaling: a mapping of
    SCALING per ratio asked for, where ``overlap`` is what two runs' sets share on average, and worst and best are the
    mean accuracy if all images of left-out classes counted as wrong, or as right (paper, Figure 5B).
    Raises ValueError when there is no run.
    """
    if not metrics or not all(metrics.values()):
        raise ValueError(f"{method}: there is no classifier run to sum up")
    ratio, runs = next(iter(metrics.items()))
    accuracies = [float(run["accuracy"]) for run in runs]
    mean, error = mean_and_error(accuracies)
    added = compare_sets(sets.get(ratio, []))
    return {
        "method": method,
        "title": row["title"],
        "family": row["family"],
        "start": row["start"],
        "augment": row.get("augment"),
        "asked_ratio": ratio,
        "ratio": round(added["added"] / train, DIGITS),
        "sets": added["sets"],
        "runs": len(accuracies),
        "accuracies": accuracies,
        "accuracy_mean": round(mean, DIGITS),
        "accuracy_se": None if error is None else round(error, DIGITS),
        "validation_mean": round(statistics.fmean(run["best_validation_accuracy"] for run in runs), DIGITS),
        **_effort(runs),
        "added_images": audit["added"] if audit else 0,
        "audit": dict(audit) if audit else None,
        "scaling": [_at_ratio(method, ratio, runs, sets.get(ratio, []), tested) for ratio, runs in metrics.items()],
    }


def _effort(runs: Sequence[Mapping]) -> dict:
    """How long the runs were trained."""
    return {
        "epochs": statistics.fmean(run["epochs"] for run in runs),
        "at_cap": sum(bool(run["at_cap"]) for run in runs),
        "steps": round(statistics.fmean(run["steps"] for run in runs)),
        "images_seen": round(statistics.fmean(run["images_seen"] for run in runs)),
    }


def compare_sets(sets: Sequence[Sequence]) -> dict:
    """How alike the sets are that the runs of a method add: ``added`` images per set, ``sets`` that differ, and
    ``overlap``, the share of a set's images that another set also has, mean over all pairs (None without a pair)."""
    if not sets or not len(sets[0]):
        return {"added": 0, "sets": 0, "overlap": None}
    size = statistics.fmean(map(len, sets))
    _, holders = np.unique(np.concatenate(sets), return_counts=True)  # of each image: sets that have it
    pairs = len(sets) * (len(sets) - 1)
    overlap = float((holders * (holders - 1)).sum()) / (pairs * size) if pairs else None
    return {"added": size, "sets": len({np.unique(each).tobytes() for each in sets}), "overlap": overlap}


def _at_ratio(method: str, ratio: float, runs: Sequence[Mapping], sets: Sequence[Sequence], tested: int) -> dict:
    mean, error = mean_and_error([float(run["accuracy"]) for run in runs])
    known = runs[0]["n_test"] / tested
    numbers = {"accuracy_mean": mean, "accuracy_worst": known * mean, "accuracy_best": known * mean + 100 * (1 - known)}
    numbers |= {"accuracy_se": error} | compare_sets(sets)
    rounded = {key: None if value is None else round(value, DIGITS) for key, value in numbers.items()}
    labels = {"method": method, "ratio": ratio, "runs": len(runs), "classes": runs[0]["n_classes"]}
    return {key: (labels | rounded)[key] for key in SCALING}


def scaling(summaries: Sequence[Mapping]) -> pd.DataFrame:
    """Figure 5B as a table: each method at each ratio, columns SCALING."""
    return pd.DataFrame([row for summary in summaries for row in summary["scaling"]], columns=SCALING)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error, in the unit of the values; no error for a single value."""
    if len(values) < 2:
        return statistics.fmean(values), None
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def table1(summaries: Sequence[Mapping], paper: pd.DataFrame) -> pd.DataFrame:
    """Table 1: one row per summary, in their order, beside the paper's figures.

    ``paper`` holds the figures of one of its data sets: method, accuracy and se (percent; see :func:`published`).
    Returns ``COLUMNS``; accuracies are in percent, ``ratio`` is that of the images that were really added, epochs,
    steps and images seen are means over the runs. Empty where there is none: ``accuracy_se`` of a single run, the
    paper's figures of a new method.
    """
    figures = paper.set_index("method")[["accuracy", "se"]].astype(float).to_dict("index")
    rows = []
    for summary in summaries:
        figure = figures.get(summary["method"], {"accuracy": None, "se": None})
        theirs = {"paper_accuracy": figure["accuracy"], "paper_se": figure["se"]}
        rows.append({key: summary[key] for key in COLUMNS if key not in theirs} | theirs)
    numbers = ["ratio", "accuracy_mean", "accuracy_se", "epochs", "paper_accuracy", "paper_se"]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype(dict.fromkeys(numbers, float)).round(dict.fromkeys(numbers, DIGITS))


def published(paper: pd.DataFrame, dataset: str | None) -> pd.DataFrame:
    """The figures of ``paper_results.csv`` for one of the paper's data sets; none for None."""
    return paper[paper["dataset"] == dataset]
