import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from augbench import comparison, perclass
from augbench.summary import summarise, table1

CLASSES = ["a", "b", "c"]
METHODS = ["none", "prompts", "retrieval", "more"]


def _summary(method, mean, error=0.1, family="prompting"):
    start = {"none": "none"}.get(method, "noise")
    about = {"method": method, "title": method.title(), "family": family, "start": start, "runs": 5}
    return about | {"accuracy_mean": mean, "accuracy_se": error}


@pytest.mark.parametrize(
    ("rows", "verdict", "words"),
    [
        ([("r", 92, 0.1, "retrieval"), ("g", 91, 0.1, "prompting")], "Retrieve.", "clearly ahead of G"),
        ([("r", 91, 0.1, "retrieval"), ("g", 92, 0.1, "prompting")], "Generate.", "clearly ahead of R"),
        ([("r", 91, 0.5, "retrieval"), ("g", 92, 0.5, "prompting")], "Undecided.", "does not separate"),
        ([("r", 91, None, "retrieval"), ("g", 92, None, "prompting")], "Neither", "does not separate"),
        ([("r", 90, 0.1, "retrieval"), ("g", 89, 0.1, "prompting")], "Neither", "R is the best"),
        ([("g", 92, 0.1, "prompting")], "", "G is the best"),
        ([], "", "No method that adds images"),
    ],
)
def test_the_answer_says_no_more_than_the_intervals_allow(rows, verdict, words):
    found = comparison.answer([_summary("none", 90, 0.1, "baseline"), *(_summary(*row) for row in rows)])
    assert found["verdict"].startswith(verdict) and bool(found["verdict"]) == bool(verdict)
    assert words in found["sentence"]
    clear = "clearly" in words or len(rows) == 1 or words == "R is the best"
    assert found["winner"] == (max(rows, key=lambda row: row[1])[0] if clear else None)


def test_intervals_follow_students_t():
    low, high = comparison.interval(_summary("g", 90, 1.0))
    assert (low, high) == pytest.approx((90 - 2.776445, 90 + 2.776445))


def _runs(method, *accuracies):
    runs = [{"accuracy": value, "n_test": 100, "n_classes": 2} for value in accuracies]
    return summarise(method, {"title": method, "family": "prompting"}, {1.0: runs}, None, 100)


def test_a_paired_difference_worked_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3); t(0.975, 2) = 4.302653."""
    table = comparison.differences([_runs("b", 61.0, 72.0, 53.0), _runs("a", 60.0, 70.0, 50.0)])
    (row,) = table.to_dict("records")
    half = 4.302653 / math.sqrt(3)
    assert [row[key] for key in ("method", "other", "runs", "difference")] == ["b", "a", 3, 2]
    assert (row["low"], row["high"]) == pytest.approx((2 - half, 2 + half), abs=1e-4)
    assert row["t"] == pytest.approx(2 * math.sqrt(3), abs=1e-4)
    # two degrees of freedom: P(|T| > t) = 1 - t / sqrt(t^2 + 2)
    assert row["p"] == row["p_holm"] == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-6)


def test_runs_are_paired_not_pooled():
    """Runs differ by 20 points, methods by 1 in each of them: overlapping intervals, a clear difference."""
    one, two = _runs("a", 60.0, 70.0, 80.1), _runs("b", 61.0, 71.0, 81.0)
    assert not comparison.separated(two, one)
    assert comparison.differences([one, two])["p"][0] < 0.01


def test_holm_worked_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1, never less than one before
    assert comparison.holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert comparison.holm([0.9, 0.8]) == [1.0, 1.0]
    assert comparison.holm([]) == []


def test_differences_without_spread_or_with_one_run():
    same = comparison.differences([_runs("a", 60.0, 61.0), _runs("b", 59.0, 60.0), _runs("c", 60.0, 61.0)])
    assert list(same["p"]) == [0, 1, 0]
    assert list(same["low"]) == [1, 0, -1]
    single = comparison.differences([_runs("a", 60.0), _runs("b", 59.0)])
    assert single["difference"][0] == 1
    assert single[["low", "high", "t", "p", "p_holm"]].isna().all(axis=None)
    assert comparison.differences([_runs("a", 1.0)]).empty
    with pytest.raises(ValueError):
        comparison.differences([_runs("a", 60.0, 61.0), _runs("b", 59.0)])


def test_differences_are_turned_round():
    table = comparison.differences([_runs("a", 60.0, 62.0), _runs("b", 61.0, 62.0), _runs("c", 50.0, 52.5)])
    first, second = comparison.against(table, "b")
    assert (first["method"], first["other"], first["difference"]) == ("b", "a", 0.5)
    assert (first["low"], first["high"]) == (-table["high"][0], -table["low"][0])
    assert (second["method"], second["other"], second["t"]) == ("b", "c", table["t"][2])


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """Predictions of random classifiers, as the workflow leaves them, and the arrays they came from."""
    folder, random = tmp_path_factory.mktemp("classifier"), np.random.default_rng(3)
    truth = np.array(CLASSES).repeat([10, 20, 30])
    paths, arrays = {}, {}
    for skill, method in enumerate(METHODS):
        for k in range(4):
            wrong = random.choice(CLASSES, len(truth))
            said = np.where(random.random(len(truth)) < 0.3 + 0.15 * skill, truth, wrong)
            table = pd.DataFrame({"image_id": [str(i) for i in range(60)], "class": truth, "predicted": said})
            path = folder / method / f"run-{k}" / "predictions.parquet"
            path.parent.mkdir(parents=True)
            table.assign(correct=truth == said, confidence=0.5).to_parquet(path)
            paths.setdefault(method, []).append(path)
            arrays.setdefault(method, []).append(said)
    return paths, truth, {method: np.array(said) for method, said in arrays.items()}


def test_numbers_equal_those_recomputed_from_the_predictions(predicted):
    """Against numpy and SciPy's own paired t-test on nothing but what the classifiers said."""
    paths, truth, said = predicted
    summaries = []
    for method in METHODS:
        runs = [pd.read_parquet(path) for path in paths[method]]
        metrics = [{"accuracy": 100 * run["correct"].mean(), "n_test": 60, "n_classes": 3} for run in runs]
        summaries.append(summarise(method, {"title": method, "family": "prompting"}, {1.0: metrics}, None, 60))
    rates = {method: 100 * (arrays == truth).mean(axis=1) for method, arrays in said.items()}

    table = table1(summaries, pd.DataFrame({"method": [], "accuracy": []})).set_index("method")
    for method in METHODS:
        assert table.loc[method, "accuracy_mean"] == pytest.approx(rates[method].mean(), abs=1e-4)
        assert table.loc[method, "accuracy_se"] == pytest.approx(rates[method].std(ddof=1) / 2, abs=1e-4)

    found = comparison.differences(summaries)
    tests = [stats.ttest_rel(rates[row.method], rates[row.other]) for row in found.itertuples()]
    assert len(found) == 6
    assert list(found["p"]) == pytest.approx([test.pvalue for test in tests], abs=1e-6)
    assert list(found["low"]) == pytest.approx([test.confidence_interval(0.95).low for test in tests], abs=1e-4)
    assert list(found["high"]) == pytest.approx([test.confidence_interval(0.95).high for test in tests], abs=1e-4)


def test_classes_equal_those_recomputed_from_the_predictions(predicted):
    paths, truth, said = predicted
    accuracies, confusions = perclass.measure(paths)
    assert list(accuracies["method"].unique()) == METHODS
    by = accuracies.set_index(["method", "class"])
    for method in METHODS:
        for key in CLASSES:
            rates = 100 * (said[method] == truth)[:, truth == key].mean(axis=1)
            assert by.loc[(method, key), "accuracy_mean"] == pytest.approx(rates.mean(), abs=1e-4)
            assert by.loc[(method, key), "accuracy_se"] == pytest.approx(rates.std(ddof=1) / 2, abs=1e-4)
            taken = pd.Series(said[method][:, truth == key].ravel()).value_counts().drop(key)
            part = confusions[(confusions["method"] == method) & (confusions["class"] == key)]
            assert dict(zip(part["predicted"], part["count"], strict=True)) == dict(taken)
            assert list(part["count"]) == sorted(taken, reverse=True)
            tested = 4 * (truth == key).sum()
            assert list(part["share"]) == pytest.approx(list(100 * part["count"] / tested), abs=1e-4)
    assert list(by.loc["none", "tested"]) == [10, 20, 30]


def test_improvements_are_ranked_for_each_method_on_its_own(predicted):
    accuracies, _ = perclass.measure(predicted[0])
    means = accuracies.pivot(index="class", columns="method", values="accuracy_mean")
    table = perclass.improvements(accuracies, ["retrieval", "prompts"], "none")
    for method, part in table.groupby("method"):
        gains = means[method] - means["none"]
        assert list(part["class"]) == list(gains.sort_values().index)
        assert list(part["improvement"]) == pytest.approx(sorted(gains))
        assert list(part["rank"]) == [0, 1, 2]


def test_a_perfect_classifier_confuses_nothing(tmp_path):
    table = pd.DataFrame({"class": ["a", "b"], "predicted": ["a", "b"], "correct": [True, True]})
    table.to_parquet(tmp_path / "p.parquet")
    accuracies, confusions = perclass.measure({"m": [tmp_path / "p.parquet"]})
    assert list(accuracies["accuracy_mean"]) == [100, 100]
    assert accuracies["accuracy_se"].isna().all()
    assert confusions.empty
