"""Compares methods: intervals of their accuracies, paired differences over runs, and the study's answer."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import pandas as pd

from augbench.summary import DIGITS, mean_and_error

CONFIDENCE = 0.95
DIFFERENCES = ["method", "other", "runs", "difference", "low", "high", "t", "p", "p_holm"]


def accuracy(summary: Mapping) -> str:
    """A method's mean accuracy and standard error as text, in percent."""
    error = (
        "" if summary["accuracy_se"] is None else f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{summary['accuracy_se']:.1f}"
    )
    return f"{summary['accuracy_mean']:.1f}{error}%"


def half_width(error: float, runs: int) -> float:
    """Half of the 95% interval (Student's t) of a mean over ``runs`` with this standard error, in its unit."""
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, runs - 1)) * error


def interval(summary: Mapping) -> tuple[float, float]:
    """95% interval of a method's mean accuracy (percent), from Student's t; endless for a single run."""
    if summary["accuracy_se"] is None:
        return -math.inf, math.inf
    half = half_width(summary["accuracy_se"], summary["runs"])
    return summary["accuracy_mean"] - half, summary["accuracy_mean"] + half


def separated(better: Mapping, worse: Mapping) -> bool:
    """Whether the 95% intervals of two methods do not overlap."""
    return interval(better)[0] > interval(worse)[1]


# --- paired


def differences(summaries: Sequence[Mapping]) -> pd.DataFrame:
    """Paired differences of accuracy between all methods: a row per pair, columns DIFFERENCES.

    Run k of two methods has the same seed, so runs are paired: what a seed does to both cancels. ``difference``
    is the mean of method minus other in percentage points, ``low`` and ``high`` its 95% interval and ``p`` the
    two-sided p-value of the paired t-test; ``p_holm`` is p corrected for all pairs (Holm). All but the difference
    are empty for a single run. Raises ValueError when two methods have different numbers of runs.
    """
    rows = [_paired(method, other) for method, other in combinations(summaries, 2)]
    table = pd.DataFrame(rows, columns=DIFFERENCES)
    tested = table["p"].notna()
    table.loc[tested, "p_holm"] = holm(list(table.loc[tested, "p"]))
    numbers = DIFFERENCES[3:]
    places = dict.fromkeys(numbers[:4], DIGITS) | dict.fromkeys(numbers[4:], 6)
    return table.astype(dict.fromkeys(numbers, float)).round(places)


def _paired(method: Mapping, other: Mapping) -> dict:
    from scipy.stats import t

    runs = method["runs"]
    about = {"method": method["method"], "other": other["method"], "runs": runs}
    pairs = zip(method["accuracies"], other["accuracies"], strict=True)
    mean, error = mean_and_error([one - two for one, two in pairs])
    if error is None:
        return about | {"difference": mean}
    half = half_width(error, runs)
    found = about | {"difference": mean, "low": mean - half, "high": mean + half}
    if error < 1e-9:  # all runs differ by the same amount: percentages that differ in their last bits count as equal
        return found | {"p": float(abs(mean) < 1e-9)}
    return found | {"t": mean / error, "p": float(2 * t.sf(abs(mean / error), runs - 1))}


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down procedure, in their order."""
    corrected, largest = [0.0] * len(values), 0.0
    for place, k in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - place) * values[k]))
        corrected[k] = largest
    return corrected


def against(table: pd.DataFrame, method: str) -> list[dict]:
    """The rows of :func:`differences` that compare ``method``, turned so that it comes first: key ``other``."""
    rows = []
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        if row["method"] == method:
            rows.append(row)
        elif row["other"] == method:
            rows.append(_turned(row))
    return rows


def _turned(row: Mapping) -> dict:
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


# --- what the numbers say


def best(summaries: Sequence[Mapping], wanted=lambda family: family != "baseline") -> Mapping | None:
    """The most accurate of the methods whose family is wanted; None where there is none."""
    found = [row for row in summaries if wanted(row["family"])]
    return max(found, key=lambda row: row["accuracy_mean"]) if found else None


def answer(summaries: Sequence[Mapping]) -> dict:
    """The study's answer to "Retrieve or generate?": a ``verdict`` in a word or two, a ``sentence``, and the
    ``winner``, the method that is separated from all others that add images; None where none is."""
    added = sorted((row for row in summaries if row["family"] != "baseline"), key=lambda row: -row["accuracy_mean"])
    floor = next((row for row in summaries if row["start"] == "none"), None)
    if not added:
        return {"verdict": "", "sentence": "No method that adds images was part of this study.", "winner": None}
    first, rivals = added[0], added[1:]
    sentence = f"{first['title']} is the best of the methods that add images: {accuracy(first)}"
    if rivals:
        second = f"{rivals[0]['title']} ({accuracy(rivals[0])})"
        sentence += (
            f", clearly ahead of {second}"
            if separated(first, rivals[0])
            else f", but this does not separate it from the second, {second}: the 95% intervals overlap"
        )
    baselines = [f"{row['title']} {accuracy(row)}" for row in summaries if row["family"] == "baseline"]
    if baselines:
        sentence += f"; baselines: {', '.join(baselines)}"
    clear = all(separated(first, rival) for rival in rivals)
    winner = first["method"] if clear else None
    return {"verdict": _verdict(first, rivals, floor), "sentence": sentence + ".", "winner": winner}


def _verdict(first: Mapping, rivals: Sequence[Mapping], floor: Mapping | None) -> str:
    if floor and not separated(first, floor):
        return "Neither, as far as this study can tell."
    retrieves = first["family"] == "retrieval"
    other = next((row for row in rivals if (row["family"] == "retrieval") != retrieves), None)
    if other is None:
        return ""
    if not separated(first, other):
        return "Undecided."
    return "Retrieve." if retrieves else "Generate."
