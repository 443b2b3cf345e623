"""Standard errors over several draws of the target, against simulated studies whose variances are known."""

import math

import numpy as np
import pandas as pd
import pytest
from made_report import make_results, plan, results, section

from augbench.core import files
from augbench.report import subsamples
from augbench.report.catalogue import EXHIBITS

DRAWS, RUNS = 3, 5
BETWEEN, WITHIN = 2.0, 1.0  # standard deviations of draws, and of runs within a draw


def simulated(studies=4000, effect=0.0):
    """Accuracies (studies, draws, runs) of two methods on the same draws; the second is better by ``effect``."""
    random = np.random.default_rng(5)
    draws = random.normal(70, BETWEEN, (studies, DRAWS, 1))
    return [draws + gain + random.normal(0, WITHIN, (studies, DRAWS, RUNS)) for gain in (0.0, effect)]


def test_the_standard_error_holds_both_sources_of_variance():
    """The mean of 3 draws of 5 runs varies by 4 / 3 of the draws and by 1 / 15 of the runs."""
    values, _ = simulated()
    rows = [subsamples.nested(each) for each in values]
    true = BETWEEN**2 / DRAWS + WITHIN**2 / (DRAWS * RUNS)
    assert np.mean([row["accuracy_se"] ** 2 for row in rows]) == pytest.approx(true, rel=0.05)
    assert np.var([row["accuracy_mean"] for row in rows]) == pytest.approx(true, rel=0.1)
    # Fifteen runs as if they were of one population would say less than a quarter of it.
    naive = np.mean([each.var(ddof=1) / each.size for each in values])
    assert naive < true / 3.5
    assert np.mean([row["sd_runs"] ** 2 for row in rows]) == pytest.approx(WITHIN**2, rel=0.05)
    assert np.median([row["sd_draws"] for row in rows]) == pytest.approx(BETWEEN, rel=0.2)


@pytest.mark.middle  # takes seconds
def test_differences_are_paired_by_draw_and_their_intervals_cover():
    """What draws have in common cancels: of 3 draws of 5 runs a difference varies by 2 / 15."""
    one, two = simulated(effect=0.5)
    rows = [subsamples.difference(*pair) for pair in zip(two, one, strict=True)]
    assert np.mean([row["difference"] for row in rows]) == pytest.approx(0.5, abs=0.03)
    assert np.var([row["difference"] for row in rows]) == pytest.approx(2 * WITHIN**2 / (DRAWS * RUNS), rel=0.1)
    covered = np.mean([row["low"] <= 0.5 <= row["high"] for row in rows])
    assert covered == pytest.approx(0.95, abs=0.012)
    same = simulated()
    errors = np.mean([subsamples.difference(*pair)["p"] < 0.05 for pair in zip(*same, strict=True)])
    assert errors == pytest.approx(0.05, abs=0.012)


def test_by_hand(tmp_path):
    """Draws with means 60, 64 and 68, 4 apart: a standard deviation of 4. Runs are 1 around them, of variance 2."""
    draws = [[59.0, 61.0], [63.0, 65.0], [67.0, 69.0]]
    paths = []
    for method, gain in (("none", 0.0), ("mine", 3.0)):
        for number, runs in enumerate(draws):
            paths.append(tmp_path / f"{method}-{number}.json")
            files.write_json(paths[-1], {"accuracies": [value + gain + number * (gain > 0) for value in runs]})
    subsamples.write(tmp_path / "table.csv", ["none", "mine"], paths, "none")
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table.columns) == subsamples.COLUMNS
    none, mine = table.to_dict("records")
    assert (none["draws"], none["runs"], none["accuracy_mean"]) == (3, 2, 64)
    assert none["accuracy_se"] == pytest.approx(4 / math.sqrt(3), abs=1e-4)
    assert none["sd_runs"] == pytest.approx(math.sqrt(2), abs=1e-4)
    assert none["sd_draws"] == pytest.approx(math.sqrt(16 - 2 / 2), abs=1e-4)
    assert math.isnan(none["difference"])
    # Gains of 3, 4 and 5: a mean of 4 with an error of 1 / sqrt(3), and t of 0.975 with 2 degrees of freedom is 4.3027.
    assert mine["difference"] == 4
    assert mine["low"] == pytest.approx(4 - 4.3027 / math.sqrt(3), abs=1e-3)
    assert mine["p"] == pytest.approx(0.0202, abs=1e-3)  # t = 6.93


def test_a_single_run_per_draw_has_no_variances_of_its_own():
    row = subsamples.nested(np.array([[60.0], [62.0]]))
    assert row == {"draws": 2, "runs": 1, "accuracy_mean": 61.0, "accuracy_se": 1.0}


def test_the_report_shows_them(tmp_path):
    folder = make_results(tmp_path / "digits")
    study = plan(subsamples=2)
    values = {method: np.array([[60.0, 61.0], [62.0, 63.0]]) + place for place, method in enumerate(study.methods)}
    path = folder / "tables" / "subsamples.csv"
    files.write_csv(path, subsamples.table(values, "none"))
    html = section(results(folder, study, subsamples=str(path)), "subsamples")
    assert "over 2 draws of the target with 2 runs each" in html and "nested means" in html
    assert "with 1 degrees of freedom" in html and ">Minus Target data only<" in html and ">+4.0<" in html
    assert "subsamples" not in exhibits_of(plan())


def exhibits_of(study) -> set[str]:
    return {name for exhibit in EXHIBITS for name in exhibit.names(study)}
