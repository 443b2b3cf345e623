"""Extrapolation and intervals against the paper's own case and against cases worked by hand."""

import numpy as np
import pandas as pd
import pytest

from augbench.audit import verdicts
from augbench.audit.verdicts import estimate, interval, sample, summarise


def pairs(count, reference_set="test"):
    return pd.DataFrame(
        {
            "added_id": [f"a{i}" for i in range(count)],
            "reference_set": reference_set,
            "reference_id": [f"r{i // 2}" for i in range(count)],
            "distance": [9 - i % 10 for i in range(count)],
        }
    )


def judged(table, words):
    return table[verdicts.KEY].assign(verdict=words)


def test_the_papers_own_case():
    """500 of 2,377 inspected, four real: 19 estimated (section 4.5)."""
    found = estimate(2377, 500, 4)
    assert found["rate"] == pytest.approx(0.008)
    assert round(found["estimate"]) == 19
    assert 4 <= found["low"] < 19 < found["high"]
    # With 500 of 2,377 the interval lies inside Clopper and Pearson's binomial one, 0.218% to 2.036% of them.
    assert 0.00218 * 2377 < found["low"] <= found["high"] < 0.02036 * 2377


def test_intervals_worked_by_hand():
    # 2 of 4, one real. One in all: P(1 or more) = 1/2. Three in all: P(1 or fewer) = 3/6. Four: one was none.
    assert interval(4, 2, 1) == (1, 3)
    # 5 of 10, none real. P(none) is 21/252 = 8.3% for three in all, 6/252 = 2.4% for four.
    assert interval(10, 5, 0) == (0, 3)
    # 5 of 10, all real, is the same with the parts changed.
    assert interval(10, 5, 5) == (7, 10)
    # Everything inspected: nothing is uncertain, but for what is unsure.
    assert interval(7, 7, 3) == (3, 3)
    assert interval(7, 7, 3, 4) == (3, 4)
    # 1 of 2, one real: P(it) = 1/2 for one in all.
    assert interval(2, 1, 1) == (1, 2)


def test_the_interval_covers_the_truth_in_19_of_20_samples_or_more():
    from scipy.stats import hypergeom

    for truth in (0, 1, 7, 20, 30):
        chances = hypergeom.pmf(range(11), 30, truth, 10)
        covered = sum(
            chance
            for seen, chance in enumerate(chances)
            if chance > 0 and interval(30, 10, seen)[0] <= truth <= interval(30, 10, seen)[1]
        )
        assert covered >= 0.95


def test_what_verdicts_say_about_each_reference_set():
    table = pd.concat([pairs(6), pairs(2, "validation")], ignore_index=True)
    words = ["duplicate", "duplicate", "not", "duplicate", "unsure", "not", "not", "not"]
    sizes = {"test": 200, "validation": 50, "unused": 0}
    found = summarise(table, judged(table, words), sizes, 500, ["test"], 0, "m")
    test = found["test"]
    assert (test["candidates"], test["inspected"], test["duplicates"], test["unsure"]) == (6, 6, 3, 1)
    assert (test["added"], test["leaked"], test["state"]) == (3, 2, "all")  # r0, shown twice, and r1
    assert test["drop"] == pytest.approx(1.0)  # 2 of 200 test images
    assert (test["drop_low"], test["drop_high"]) == pytest.approx((1.0, 1.5))  # r2, of which somebody was unsure
    assert (test["rate"], test["estimate"], test["low"], test["high"]) == (0.5, 3.0, 3, 4)
    assert (found["validation"]["duplicates"], found["validation"]["high"]) == (0, 0)
    assert (found["unused"]["candidates"], found["unused"]["estimate"], found["unused"]["drop"]) == (0, 0.0, 0.0)


def planted(seed=0, unused=18_000):
    """2,000 candidates of the test set, each of another image, 200 of them duplicates; and those of unused images."""
    random = np.random.default_rng(seed)
    parts = [pairs(2000), pairs(unused, "unused")]
    for part in parts:
        part["reference_id"] = [f"r{i}" for i in range(len(part))]
        part["distance"] = random.integers(0, 10, len(part))
    table = pd.concat(parts, ignore_index=True)
    table["truth"] = "not"
    table.loc[random.permutation(2000)[:200], "truth"] = "duplicate"
    return table


@pytest.mark.middle  # takes seconds
def test_all_of_the_test_set_is_judged_and_the_accuracy_at_stake_is_exact():
    table = planted()
    drawn = sample(table, 500, ["test"], 0, "m")
    assert dict(drawn["reference_set"].value_counts()) == {"test": 2000, "unused": 500}
    found = summarise(table, judged(drawn, drawn["truth"]), {"test": 50_000, "unused": 9}, 500, ["test"], 0, "m")
    test = found["test"]
    assert (test["state"], test["leaked"], test["leaked_estimate"]) == ("all", 200, 200)
    assert (test["drop_low"], test["drop"], test["drop_high"]) == pytest.approx((0.4, 0.4, 0.4))


@pytest.mark.middle  # takes seconds
def test_what_leaked_is_estimated_where_a_sample_is_judged():
    """The truth, 200 images and 0.4 points, lies in 19 of 20 intervals or more; the confirmed ones are a fraction."""
    covered, estimates = 0, []
    for seed in range(30):
        table = planted(seed, unused=1000)
        drawn = sample(table, 500, [], seed, "m")
        assert (drawn["reference_set"] == "test").sum() == 500  # a sample of each set, whatever the others hold
        test = summarise(table, judged(drawn, drawn["truth"]), {"test": 50_000}, 500, [], seed, "m")["test"]
        assert test["state"] == "sample" and test["leaked"] < 80
        covered += test["leaked_low"] <= 200 <= test["leaked_high"]
        assert (test["drop_low"] <= 0.4 <= test["drop_high"]) == (test["leaked_low"] <= 200 <= test["leaked_high"])
        estimates.append(test["drop"])
    assert covered >= 26  # 28.5 of 30 expected, standard deviation 1.2
    assert np.mean(estimates) == pytest.approx(0.4, abs=0.03)


def test_images_in_several_pairs_leak_once():
    """Four candidate pairs of r0 and one each of r1 to r6: two duplicate pairs may be one image, five are two."""
    references = pd.Series(["r0"] * 4 + [f"r{i}" for i in range(1, 7)])

    def of(low, high, confirmed=0):
        found = verdicts.leaked({"estimate": float(high), "low": low, "high": high}, references, confirmed)
        return found["low"], found["high"]

    assert [of(0, 3), of(2, 3), of(4, 5), of(5, 9), of(2, 3, confirmed=2)] == [(0, 3), (1, 3), (1, 5), (2, 7), (2, 3)]


def test_nothing_is_extrapolated_before_the_whole_sample_is_judged():
    table = pairs(100)
    drawn = sample(table, 20, [], 5, "m")
    assert drawn["distance"].is_monotonic_increasing
    assert len(drawn.drop_duplicates(verdicts.KEY)) == 20
    assert drawn.equals(sample(table, 20, [], 5, "m"))
    assert not drawn.equals(sample(table, 20, [], 6, "m"))
    all_of_it = judged(drawn, ["duplicate"] * 5 + ["not"] * 15)

    def told(given):
        return summarise(table, given, {"test": 10}, 20, [], 5, "m")["test"]

    assert (told(all_of_it)["state"], told(all_of_it)["estimate"]) == ("sample", 25.0)
    for given in (all_of_it.iloc[:-1], judged(table.iloc[:20], "not"), judged(table.iloc[:0], [])):
        found = told(given)
        assert (found["state"], found["estimate"], found["leaked_low"]) == ("part", None, None)
        assert found["inspected"] == len(given)
    few = told(all_of_it.iloc[:5])
    assert few["drop"] == pytest.approx(10 * few["leaked"])  # at least: of 10 images


def test_verdicts_beyond_the_sample_are_confirmed_but_not_extrapolated_from():
    """All closest pairs were judged as well as the sample: the rate is the sample's alone."""
    table = pairs(100)
    drawn = sample(table, 20, [], 5, "m")
    rest = table[~table["added_id"].isin(drawn["added_id"])].head(10)
    both = pd.concat([judged(drawn, ["duplicate"] * 5 + ["not"] * 15), judged(rest, "duplicate")])
    found = summarise(table, both, {"test": 10}, 20, [], 5, "m")["test"]
    assert (found["state"], found["estimate"], found["duplicates"]) == ("sample", 25.0, 15)


def test_mistakes_in_verdicts_are_told_in_one_sentence(tmp_path):
    table, path = pairs(3), tmp_path / "m.csv"
    head = "added_id,reference_set,reference_id,verdict\n"

    def told(text):
        path.write_text(text)
        with pytest.raises(ValueError) as caught:
            verdicts.read(path, table)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "line 3: a verdict is one of duplicate, not, unsure, not 'maybe'" in told(
        head + "a0,test,r0,not\na1,test,r0,maybe\n"
    )
    assert "line 2: the pair of a0 and r1 (test) is not a candidate" in told(head + "a0,test,r1,not\n")
    twice = "a0,test,r0,not\na0,test,r0,unsure\n"
    assert "line 3: the pair of a0 and r0 (test) is judged twice" in told(head + twice)
    assert "verdict is missing" in told("added_id,reference_set,reference_id\n")
    assert "cannot be read as CSV" in told("")
    path.write_text(head + "a2,test,r1,duplicate\n")
    assert verdicts.read(path, table).to_dict("records") == [
        {"added_id": "a2", "reference_set": "test", "reference_id": "r1", "verdict": "duplicate"}
    ]
