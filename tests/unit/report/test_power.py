"""How many runs separate two methods: against tables of the t-test, and the report's own test on made classifiers."""

import numpy as np
import pytest
from scipy import stats

from augbench.report import comparison, power


@pytest.mark.parametrize(("effect", "runs"), [(0.5, 64), (0.8, 26), (1.0, 17), (1.2, 12)])
def test_without_spread_over_images_it_is_the_textbooks_table(effect, runs):
    """Cohen 1988, table 2.4.1: samples of each group for a power of 80% at 5%, two-sided, equal variances."""
    spread = power.Spread(4.0, 4.0, 0.0, 1000)
    assert power.needed(2 * effect, spread, 0.05) == power.Needed(runs, None)
    assert power.power(2 * effect, spread, runs - 1, 0.05) < power.POWER <= power.power(2 * effect, spread, runs, 0.05)


def test_a_difference_of_nothing_is_called_one_as_often_as_the_level_says():
    assert power.power(0.0, power.Spread(1.0, 2.0, 0.5, 300), 5, 0.05) == pytest.approx(0.05)
    assert power.needed(0.0, power.Spread(1.0, 2.0, 0.5, 300), 0.05) == power.Needed(None, None)


def test_where_the_test_images_are_too_few_no_number_of_runs_is_enough():
    """Worked by hand: a normal test needs a standard error of 1 / (1.960 + 0.842), so a variance of 0.1274; 500 images
    leave one of 0.5, so 0.5 / 0.1274 times as many are needed."""
    found = power.needed(1.0, power.Spread(0.1, 0.1, 0.5, 500), 0.05)
    assert found.runs is None and found.tested == pytest.approx(500 * 0.5 / 0.1274, rel=1e-3)
    assert power.needed(1.0, power.Spread(90.0, 90.0, 0.01, 500), 0.05) == power.Needed(None, None)


def _hits(random, runs, images, gap, taste=0.4, luck=0.25):
    """Which run recognised which image, of two methods: images are easy or hard for both, and to each method's taste;
    runs differ by luck. The second method's logits are higher by ``gap``."""
    easy = random.normal(1.0, 1.5, images)
    for shift in (0.0, gap):
        logits = easy + random.normal(shift, taste, images) + random.normal(0, luck, (runs, 1))
        yield random.random((runs, images)) < 1 / (1 + np.exp(-logits))


def _difference(random, *study):
    one, two = _hits(random, *study)
    row = comparison.difference(*map(comparison.scores, (one, two)))
    return row | {"runs": [100 * each.mean(axis=1) for each in (one, two)]}


def test_a_spread_is_what_a_row_of_the_table_was_computed_from():
    random = np.random.default_rng(5)
    one, two = _hits(random, 4, 200, 0.3)
    row = comparison.difference(*map(comparison.scores, (one, two)))
    runs = [100 * each.mean(axis=1) for each in (one, two)]
    found = power.spread(row["low"], row["high"], row["df"], runs, 200)
    assert found.one == pytest.approx(np.var(runs[0], ddof=1))
    error = np.sqrt((found.one + found.other) / 4 + found.images)
    assert row["difference"] / error == pytest.approx(row["t"])


@pytest.mark.middle  # takes seconds
@pytest.mark.parametrize(("images", "gap", "taste", "luck"), [(1500, 0.25, 0.4, 0.25), (600, 0.33, 1.6, 0.15)])
def test_so_many_runs_have_the_power_that_is_said(images, gap, taste, luck):
    """The spread of methods is known from 300 studies of five runs: mostly over runs, or mostly over test images. As
    many runs as are said to give 80% separate two methods in 80% of 1,000 further studies, by the report's own test."""
    random = np.random.default_rng(6)
    pilot = [_difference(random, 5, images, gap, taste, luck) for _ in range(300)]
    spreads = [power.spread(row["low"], row["high"], row["df"], row["runs"], images) for row in pilot]
    known = power.Spread(*(float(np.mean([each[k] for each in spreads])) for k in range(3)), images)
    true = float(np.mean([row["difference"] for row in pilot]))
    runs = power.needed(true, known, 0.05).runs
    separated = np.mean([_difference(random, runs, images, gap, taste, luck)["p"] < 0.05 for _ in range(1000)])
    without_images = power.needed(true, known._replace(images=0.0), 0.05).runs
    print(f"{runs} runs ({without_images} if all test images were known): {separated:.3f}")
    assert separated == pytest.approx(power.POWER, abs=0.05)


def test_welchs_test_on_runs_of_unequal_spread_has_the_power_that_is_said():
    """Normal accuracies, SciPy's own test: 4,000 studies."""
    random, spread = np.random.default_rng(7), power.Spread(1.0, 6.25, 0.0, 1000)
    runs = power.needed(1.5, spread, 0.05).runs
    one, two = random.normal(0, 1.0, (4000, runs)), random.normal(1.5, 2.5, (4000, runs))
    separated = (stats.ttest_ind(one, two, axis=1, equal_var=False).pvalue < 0.05).mean()
    print(f"{runs} runs: {separated:.3f}")
    assert separated == pytest.approx(power.POWER, abs=0.02)
