"""Compares methods: differences of accuracy with intervals and p-values, and the study's answer.

Two questions are asked of a study and tested as such: does a method help, and does the best retrieval beat what a
diffusion model generates? What holds for the page's verdict holds for its tables: a difference counts when its p-value,
corrected within its question (Holm), is below ``LEVEL``.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from augbench.core import files
from augbench.core.shares import shares
from augbench.report import groups
from augbench.report.tables import DIGITS, OTHER_DATASET, published, scaling, table1
from augbench.study.starts import STARTS, Start

LEVEL = 0.05
CONFIDENCE = 1 - LEVEL
DIFFERENCES = ["method", "other", "question", "runs", "difference", "low", "high", "t", "df", "p", "p_holm"]
HELPS, WHICH, EXPLORATORY = "helps", "retrieve or generate", "exploratory"


def start_of(summary: Mapping) -> Start:
    """Where the images that a summary's method adds come from."""
    return STARTS[summary["start"]]


def _without(summaries: Sequence[Mapping]) -> Mapping | None:
    """The summary of the method that trains on the target alone; None for a study that has no such method."""
    return next((row for row in summaries if not start_of(row).adds_images and row["augment"] is None), None)


def accuracy(summary: Mapping) -> str:
    """A method's mean accuracy and standard error as text, in percent."""
    error = (
        "" if summary["accuracy_se"] is None else f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{summary['accuracy_se']:.1f}"
    )
    return f"{summary['accuracy_mean']:.1f}{error}%"


# --- one difference


class Scores(NamedTuple):
    """What one difference needs of a method: percentages over runs and over test images."""

    by_run: np.ndarray  # accuracy of each run, float (runs,)
    by_image: np.ndarray  # mean over the runs for each test image, float (images,)
    residual: float  # variance of the mean that is neither the runs' nor the images' own


def scores(hits: np.ndarray) -> Scores:
    """:class:`Scores` of a method; ``hits`` says which run recognised which test image, bool (runs, images)."""
    runs, images = hits.shape
    values = 100.0 * hits
    by_run, by_image = values.mean(axis=1), values.mean(axis=0)
    if min(runs, images) < 2:
        return Scores(by_run, by_image, math.nan)
    rest = values - by_run[:, None] - by_image + values.mean()
    return Scores(by_run, by_image, float(np.square(rest).sum()) / ((runs - 1) * (images - 1)) / (runs * images))


def difference(method: Scores, other: Scores) -> dict:
    """The difference of two methods' accuracies (percentage points): difference, low, high, t, df and p.

    Runs and test images are both samples: the interval is for other runs on other test images. Runs are not paired
    (those of one number hardly correlate), test images are, since all classifiers see the same. The variance of the
    mean is that over runs plus that over images, minus the residual that both hold, as for several readers of several
    cases (Gallas 2006), and never less than either; degrees of freedom are Satterthwaite's. Without test images to
    sample it is Welch's t-test. All but the difference are missing where a method has a single run.
    """
    from scipy.stats import t

    gap = float(method.by_run.mean() - other.by_run.mean())
    counts = [len(each.by_run) for each in (method, other)]
    images = method.by_image - other.by_image
    if min(*counts, len(images)) < 2:
        return {"difference": gap}
    over_runs = [each.by_run.var(ddof=1) / len(each.by_run) for each in (method, other)]
    over_images = images.var(ddof=1) / len(images)
    variance = sum(over_runs) + over_images - method.residual - other.residual
    variance = max(variance, sum(over_runs), over_images)
    if variance < 1e-18:  # percentages that differ in their last bits count as equal
        return {"difference": gap, "low": gap, "high": gap, "p": float(abs(gap) < 1e-9)}
    parts = [(part, count - 1) for part, count in zip(over_runs, counts, strict=True)] + [
        (over_images, len(images) - 1)
    ]
    freedom = variance**2 / sum(part**2 / each for part, each in parts)
    error = math.sqrt(variance)
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p = float(2 * t.sf(abs(gap / error), freedom))
    return {"difference": gap, "low": gap - half, "high": gap + half, "t": gap / error, "df": freedom, "p": p}


def read_hits(predictions: Mapping[str, Sequence[str | Path]]) -> dict[str, np.ndarray]:
    """Which run of a method recognised which test image, bool (runs, images), from its ``predictions.parquet`` files.

    Raises ValueError naming the file that is of other test images than the first.
    """
    first, hits = None, {}
    for method, paths in predictions.items():
        runs = []
        for path in paths:
            table = pd.read_parquet(path, columns=["image_id", "correct"])
            if first is None:
                first = path, list(table["image_id"])
            elif list(table["image_id"]) != first[1]:
                raise ValueError(f"{path} is of other test images than {first[0]}: score both on one test split")
            runs.append(table["correct"].to_numpy(bool))
        hits[method] = np.stack(runs)
    return hits


# --- all differences, and the questions


def questions(summaries: Sequence[Mapping]) -> dict[str, list[tuple[str, str]]]:
    """The pairs (method, other) that each question compares; a question that a study cannot ask has none.

    ``HELPS``: each method against the target data alone. ``WHICH``: the best retrieval against each method that
    generates; validation accuracy says which is the best, so that the test images are not asked twice.
    """
    without = _without(summaries)
    retrieval = best([row for row in summaries if start_of(row).is_retrieved], "validation_mean")
    generated = [row["method"] for row in summaries if start_of(row).is_generated]
    return {
        HELPS: [(row["method"], without["method"]) for row in summaries if row is not without] if without else [],
        WHICH: [(retrieval["method"], method) for method in generated] if retrieval else [],
    }


def differences(summaries: Sequence[Mapping], hits: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Differences of accuracy between all methods: a row per pair, columns DIFFERENCES.

    ``hits`` are :func:`read_hits`'. ``difference`` is the mean of method minus other in percentage points; low, high
    and p are :func:`difference`'s, each for itself; ``p_holm`` is p corrected for the pairs of its ``question``
    (Holm). Pairs of no question are ``exploratory``: of so many some are far apart by chance, and their p is not
    corrected.
    """
    known = {method: scores(each) for method, each in hits.items()}
    asked = {frozenset(pair): name for name, pairs in questions(summaries).items() for pair in pairs}
    rows = []
    for one, two in combinations([summary["method"] for summary in summaries], 2):
        pair = {"method": one, "other": two, "question": asked.get(frozenset((one, two)), EXPLORATORY)}
        rows.append(pair | {"runs": len(hits[one])} | difference(known[one], known[two]))
    table = pd.DataFrame(rows, columns=DIFFERENCES)
    for question in (HELPS, WHICH):
        tested = (table["question"] == question) & table["p"].notna()
        table.loc[tested, "p_holm"] = holm(list(table.loc[tested, "p"]))
    numbers = DIFFERENCES[4:]
    places = dict.fromkeys(numbers[:5], DIGITS) | dict.fromkeys(numbers[5:], 6)
    return table.astype(dict.fromkeys(numbers, float)).round(places)


def write_tables(
    outputs: Mapping[str, str],
    summaries: Sequence[str],
    predictions: Sequence[str],
    train: Mapping[str, int],
    paper: str,
    methods: Sequence[str],
    dataset: str | None,
) -> None:
    """Write a study's tables as CSV: ``table1``, ``scaling``, ``groups`` and ``differences`` of ``outputs``.

    Where the classes' numbers of training images, ``train``, are of several groups, Table 1 has the columns of
    :func:`augbench.report.groups.table` too.

    ``summaries`` are files of the ``methods`` in their order, ``predictions`` those of each method's runs in turn,
    ``paper`` is ``paper_results.csv``, ``dataset`` the paper's name of the study's data set or None.
    """
    rows = [files.read_json(path) for path in summaries]
    figures = published(pd.read_csv(paper), dataset or OTHER_DATASET)
    by_method = shares(methods, predictions)
    macro = groups.table(by_method, train)
    first = table1(rows, figures)
    files.write_csv(outputs["table1"], groups.beside(first, macro) if groups.is_long_tailed(train.values()) else first)
    files.write_csv(outputs["groups"], macro)
    files.write_csv(outputs["scaling"], scaling(rows))
    files.write_csv(outputs["differences"], differences(rows, read_hits(by_method)))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down procedure, in their order."""
    corrected, largest = [0.0] * len(values), 0.0
    for place, k in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - place) * values[k]))
        corrected[k] = largest
    return corrected


def asked(table: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> list[dict]:
    """The rows of :func:`differences` for these pairs, turned so that the first of a pair is ``method``."""
    rows = {}
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        rows[row["method"], row["other"]] = row
        rows[row["other"], row["method"]] = turned(row)
    return [rows[pair] for pair in pairs]


def turned(row: Mapping) -> dict:
    def minus(value):
        return None if value is None else -value

    return dict(row) | {
        "method": row["other"],
        "other": row["method"],
        "difference": minus(row["difference"]),
        "low": minus(row["high"]),
        "high": minus(row["low"]),
        "t": minus(row["t"]),
    }


def better(row: Mapping) -> bool:
    """Whether a row of :func:`asked` says that its method is better than the other."""
    return row["p_holm"] is not None and row["p_holm"] < LEVEL and row["difference"] > 0


# --- what the numbers say


def best(summaries: Sequence[Mapping], by: str = "accuracy_mean") -> Mapping | None:
    """The summary with the highest accuracy; None where there is none."""
    return max(summaries, key=lambda row: row[by], default=None)


def answer(summaries: Sequence[Mapping], table: pd.DataFrame) -> dict:
    """The study's answer to "Retrieve or generate?": a ``verdict`` in a word or two, a ``sentence``, and ``winners``,
    the methods that are better than all, or the best, of the other kind. ``table`` is :func:`differences`'."""
    by_method = {row["method"]: row for row in summaries}
    pairs = questions(summaries)
    helping = {row["method"] for row in asked(table, pairs[HELPS]) if better(row)}
    added = [row for row in summaries if start_of(row).adds_images and not start_of(row).is_real]
    first = best(added)
    if first is None:
        return {"verdict": "", "sentence": "No method that adds images was part of this study.", "winners": []}
    without = _without(summaries)
    if without and not any(row["method"] in helping for row in added):
        verdict, winners = "Neither, as far as this study can tell.", []
        sentence = f"The best of the methods that add images, {_named(first)}, is not separated from {_named(without)}"
    elif not pairs[WHICH]:
        verdict, winners = "", []
        sentence = f"{_named(first)} is the best of the methods that add images"
        if without and first["method"] in helping:
            sentence += f" and better than {_named(without)}"
    else:
        verdict, sentence, winners = _which(asked(table, pairs[WHICH]), by_method)
    beside = [row for row in summaries if not (start_of(row).is_retrieved or start_of(row).is_generated)]
    baselines = [row for row in beside if _named(row) not in sentence]
    if baselines:
        sentence += f"; for comparison, {'; '.join(_named(row) for row in baselines)}"
    return {"verdict": verdict, "sentence": sentence + ".", "winners": winners}


def _which(rows: Sequence[Mapping], by_method: Mapping) -> tuple[str, str, list[str]]:
    """Verdict, sentence and winners from the differences of the best retrieval and each method that generates."""
    retrieval = by_method[rows[0]["method"]]
    generated = [by_method[row["other"]] for row in rows]
    ahead = [by_method[row["other"]] for row in rows if better(turned(row))]
    close = [by_method[row["other"]] for row in rows if not better(row) and not better(turned(row))]
    if ahead:
        several = f", as are {len(ahead) - 1} more methods that generate" if len(ahead) > 1 else ""
        sentence = f"{_named(best(ahead))} is better than {_named(retrieval)}{several}"
        return "Generate.", sentence, [row["method"] for row in ahead]
    if close:
        sentence = f"{_named(retrieval)} is not separated from {_named(best(close))}"
        if len(generated) > 1:
            sentence += f", nor from {len(close) - 1} more" * (len(close) > 1)
            sentence += f"; it was compared with {len(generated)} methods that generate"
        return "Undecided.", sentence, []
    rivals = _named(best(generated))
    if len(generated) > 1:
        rivals = f"each of the {len(generated)} methods that generate, the best of which is {rivals}"
    return "Retrieve.", f"{_named(retrieval)} is better than {rivals}", [retrieval["method"]]


def _named(summary: Mapping) -> str:
    return f"{summary['title']} ({accuracy(summary)})"
