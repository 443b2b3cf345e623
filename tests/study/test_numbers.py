"""The report's tables against nothing but what the classifiers of the default study said; run after `make report`."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

RESULTS = Path("results/digits")


@pytest.fixture(scope="module")
def predictions():
    """Method -> the predictions of its runs, in their order."""
    found = {}
    for method in pd.read_csv(RESULTS / "tables" / "table1.csv")["method"]:
        place = RESULTS / "classifier" / method / ("x0" if method == "none" else "x1")
        found[method] = [pd.read_parquet(place / f"run-{k}" / "predictions.parquet") for k in range(1, 6)]
    return found


def test_differences_and_their_intervals(predictions):
    hits = {
        method: np.array([100.0 * (run["class"] == run["predicted"]) for run in runs])
        for method, runs in predictions.items()
    }
    table = pd.read_csv(RESULTS / "tables" / "differences.csv", keep_default_na=False, na_values=[""])
    assert list(zip(table["method"], table["other"], strict=True)) == list(combinations(predictions, 2))
    for row in table.itertuples():
        one, two = hits[row.method], hits[row.other]
        runs = one.mean(axis=1).var(ddof=1) / 5, two.mean(axis=1).var(ddof=1) / 5
        images = (one - two).mean(axis=0).var(ddof=1) / one.shape[1]
        rest = [each - each.mean(0) - each.mean(1)[:, None] + each.mean() for each in (one, two)]
        residual = sum((each**2).sum() / (4 * (each.shape[1] - 1)) / each.size for each in rest)
        variance = max(sum(runs) + images - residual, sum(runs), images)
        freedom = variance**2 / (runs[0] ** 2 / 4 + runs[1] ** 2 / 4 + images**2 / (one.shape[1] - 1))
        gap, half = one.mean() - two.mean(), stats.t.ppf(0.975, freedom) * variance**0.5
        assert (row.difference, row.low, row.high) == pytest.approx((gap, gap - half, gap + half), abs=2e-3)
        assert row.p == pytest.approx(2 * stats.t.sf(abs(gap) / variance**0.5, freedom), abs=1e-4)
    helps = table[table["question"] == "helps"]
    assert set(helps["method"]) | set(helps["other"]) == set(predictions) and len(helps) == len(predictions) - 1
    assert helps["p_holm"].min() == pytest.approx(min(1, helps["p"].min() * len(helps)), abs=2e-5)


def test_accuracies_of_every_class(predictions):
    table = pd.read_csv(RESULTS / "tables" / "per_class.csv", keep_default_na=False, dtype={"class": str})
    assert len(table) == 10 * len(predictions)
    for row in table.itertuples():
        runs = [run[run["class"] == row._2] for run in predictions[row.method]]
        rates = pd.Series([100 * (run["class"] == run["predicted"]).mean() for run in runs])
        assert (row.tested, row.runs) == (len(runs[0]), 5)
        assert (row.accuracy_mean, row.accuracy_se) == pytest.approx((rates.mean(), rates.std() / 5**0.5), abs=1e-3)


def test_improvements_follow_from_them(predictions):
    means = pd.read_csv(RESULTS / "tables" / "per_class.csv").pivot(
        index="class", columns="method", values="accuracy_mean"
    )
    table = pd.read_csv(RESULTS / "figures" / "figure5a.csv")
    for method, rows in table.groupby("method"):
        gains = (means[method] - means["none"]).sort_values()
        assert list(rows["improvement"]) == pytest.approx(list(gains), abs=1e-3)
        assert set(rows["class"]) == set(gains.index)
