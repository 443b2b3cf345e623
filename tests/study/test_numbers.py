"""The report's tables against nothing but what the classifiers of the default study said; run after `make report`."""

from itertools import combinations
from pathlib import Path

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
    rates = {
        method: [100 * (run["class"] == run["predicted"]).mean() for run in runs]
        for method, runs in predictions.items()
    }
    table = pd.read_csv(RESULTS / "tables" / "differences.csv", keep_default_na=False, na_values=[""])
    assert list(zip(table["method"], table["other"], strict=True)) == list(combinations(predictions, 2))
    for row in table.itertuples():
        test = stats.ttest_rel(rates[row.method], rates[row.other])
        bounds = test.confidence_interval(0.95)
        assert (row.low, row.high, row.t) == pytest.approx((bounds.low, bounds.high, test.statistic), abs=2e-3)
        assert row.p == pytest.approx(test.pvalue, abs=1e-5)
        assert row.difference == pytest.approx((row.low + row.high) / 2, abs=2e-3)


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
