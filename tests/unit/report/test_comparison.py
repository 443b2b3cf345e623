import math
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from augbench.report import comparison, per_class
from augbench.report.tables import summarise, table1

CLASSES = ["a", "b", "c"]
METHODS = ["none", "prompts", "retrieval", "more"]
STARTS = {"none": "none", "more_real": "more_real", "more": "more_real", "retrieval": "pool", "r": "pool", "r2": "pool"}


def _summary(method, mean=90.0, validation=None):
    start = STARTS.get(method, "noise")
    family = {"none": "baseline", "more_real": "baseline", "pool": "retrieval"}.get(start, "prompting")
    about = {"method": method, "title": method.title(), "family": family, "start": start, "augment": None}
    return about | {"accuracy_mean": mean, "accuracy_se": 0.1, "validation_mean": validation or mean}


def _table(summaries, p):
    """Differences of the means, with corrected p-values as ``p`` says: a mapping of pairs, else 0.001."""
    rows = [
        {"method": one["method"], "other": two["method"], "difference": one["accuracy_mean"] - two["accuracy_mean"]}
        | {"p_holm": p.get((one["method"], two["method"]), p.get((two["method"], one["method"]), 0.001))}
        for one, two in combinations(summaries, 2)
    ]
    return pd.DataFrame(rows, columns=comparison.DIFFERENCES)


@pytest.mark.parametrize(
    ("means", "p", "verdict", "words", "winners"),
    [
        ({"r": 92, "g": 91}, {}, "Retrieve.", "R (92.0\xa0±\xa00.1%) is better than G", ["r"]),
        ({"r": 91, "g": 92}, {}, "Generate.", "G (92.0\xa0±\xa00.1%) is better than R", ["g"]),
        ({"r": 91, "g": 92}, {("r", "g"): 0.2}, "Undecided.", "R (91.0\xa0±\xa00.1%) is not separated from G", []),
        ({"r": 91, "g": 92}, {("none", "r"): 0.06, ("none", "g"): 0.07}, "Neither", "is not separated from None", []),
        ({"r": 89, "g": 88}, {}, "Neither", "R (89.0\xa0±\xa00.1%), is not separated", []),
        (
            {"r": 92, "g": 91, "h": 85},
            {},
            "Retrieve.",
            "each of the 2 methods that generate, the best of which is G",
            ["r"],
        ),
        ({"r": 92, "g": 91, "h": 85}, {("r", "h"): 0.3}, "Undecided.", "not separated from H", []),
        ({"r": 91, "g": 92, "h": 93}, {("r", "g"): 0.3}, "Generate.", "H (93.0\xa0±\xa00.1%) is better than R", ["h"]),
        ({"g": 92}, {}, "", "G (92.0\xa0±\xa00.1%) is the best of the methods that add images and better than", []),
        ({}, {}, "", "No method that adds images", []),
    ],
)
def test_the_answer_says_no_more_than_the_table_allows(means, p, verdict, words, winners):
    summaries = [_summary("none", 90.0), *(_summary(*each) for each in means.items())]
    found = comparison.answer(summaries, _table(summaries, p))
    assert found["verdict"].startswith(verdict) and bool(found["verdict"]) == bool(verdict)
    assert words in found["sentence"]
    assert found["winners"] == winners


def test_a_study_without_the_target_data_alone_is_answered_too():
    summaries = [_summary("r", 92.0), _summary("g", 91.0)]
    assert comparison.answer(summaries, _table(summaries, {}))["verdict"] == "Retrieve."


def test_each_question_has_its_pairs_and_validation_chooses_the_retrieval():
    """The retrieval with the best test accuracy was the luckiest on the test images; the other one is compared."""
    summaries = [_summary("none"), _summary("more_real"), _summary("g"), _summary("r", 93, 80), _summary("r2", 92, 81)]
    assert comparison.questions(summaries) == {
        comparison.HELPS: [(method, "none") for method in ("more_real", "g", "r", "r2")],
        comparison.WHICH: [("r2", "g")],
    }
    assert comparison.questions([_summary("g"), _summary("h")]) == {comparison.HELPS: [], comparison.WHICH: []}


def _hits(*accuracies, images=1000):
    """Runs that recognise so many percent of the test images, the first ones; columns are images."""
    return np.array([np.arange(images) < round(images * value / 100) for value in accuracies])


def test_a_difference_worked_by_hand():
    """Three runs of two methods on four images. Percentages by run 75, 50, 75 and 25, 50, 25: difference 100/3.

    By image 100, 100, 100/3, 100/3 and 100, 0, 100/3, 0: differences 0, 100, 0, 100/3, whose variance is that of
    (0, 3, 0, 1), 2, times (100/3)^2. Variance of the mean: of runs 2 x (625/3)/3, of images 2 (100/3)^2 / 4, less the
    residuals (sums of squares of what is left after both margins) / (2 x 3) / (3 x 4).
    """
    one = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 1]], bool)
    two = np.array([[1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0]], bool)
    found = comparison.difference(comparison.scores(one), comparison.scores(two))
    runs, images, residual = 2 * 625 / 9, 2 * (100 / 3) ** 2 / 4, 0
    for hits in (one, two):
        for k, i in product(range(3), range(4)):
            rest = hits[k, i] - hits[k].mean() - hits[:, i].mean() + hits.mean()
            residual += (100 * rest) ** 2 / 6 / 12
    variance = max(runs + images - residual, runs, images)
    freedom = variance**2 / (2 * (625 / 9) ** 2 / 2 + images**2 / 3)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    assert found["difference"] == pytest.approx(100 / 3)
    assert (found["low"], found["high"]) == pytest.approx((100 / 3 - half, 100 / 3 + half))
    assert found["df"] == pytest.approx(freedom)
    assert found["p"] == pytest.approx(2 * stats.t.sf(100 / 3 / math.sqrt(variance), freedom))


def test_without_spread_over_images_it_is_welchs_test():
    """Where every image counts alike, SciPy's test on the runs' accuracies."""
    random = np.random.default_rng(0)
    one, two = random.normal(60, 2, 5), random.normal(57, 4, 6)
    alike = np.zeros(50)
    found = comparison.difference(comparison.Scores(one, alike + 60, 0.0), comparison.Scores(two, alike + 57, 0.0))
    test = stats.ttest_ind(one, two, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert (found["t"], found["p"], found["df"]) == pytest.approx((test.statistic, test.pvalue, test.df))
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def _study(random, images, gap=0.0, runs=5):
    """Hits of two methods: chances that differ from image to image and from run to run, the second's by ``gap``."""
    own = random.normal(1.0, 1.5, images)  # how easy an image is, for both
    hits = []
    for shift in (0.0, gap):
        taste = own + shift + random.normal(0, 2.5, images)  # what this method makes of it
        logits = taste + random.normal(0, 0.1, (runs, 1))
        hits.append(random.random((runs, images)) < 1 / (1 + np.exp(-logits)))
    return hits


def test_intervals_hold_for_other_runs_and_other_test_images():
    """Two methods that are equally good on all images there could be, 600 studies: 95% of the intervals hold zero.

    Student's t over the runs alone, paired or not, is wrong far more often: it takes the test images for all.
    """
    random = np.random.default_rng(1)
    held, naive, falsely = [], [], []
    for _ in range(600):
        one, two = _study(random, 300)
        found = comparison.difference(comparison.scores(one), comparison.scores(two))
        held.append(found["low"] <= 0 <= found["high"])
        falsely.append(found["p"] < 0.05)
        naive.append(stats.ttest_rel(one.mean(axis=1), two.mean(axis=1)).pvalue >= 0.05)
    print(f"held: {np.mean(held):.3f}, over the runs alone: {np.mean(naive):.3f}")
    assert 0.93 < np.mean(held) < 0.975
    assert np.mean(falsely) == pytest.approx(1 - np.mean(held))
    assert np.mean(naive) < 0.85


def test_a_real_difference_is_found():
    random = np.random.default_rng(2)
    found = [comparison.difference(*map(comparison.scores, _study(random, 2000, gap=-1.0))) for _ in range(50)]
    assert np.mean([each["p"] < 0.01 for each in found]) > 0.95


def test_twice_the_data_is_a_clear_difference_among_fifteen_methods():
    """+8.4 points, the digits study's further real data: corrected over all 105 pairs they were p = 1."""
    random = np.random.default_rng(3)
    methods = ["none", "more_real", "retrieval", *(f"g{k}" for k in range(12))]
    skill = dict.fromkeys(methods, 2.2) | {"none": 1.8, "more_real": 2.65}
    hits, summaries = {}, []
    easy = random.normal(0, 1.5, 600)
    for method in methods:
        logits = easy + skill[method] + random.normal(0, 0.1, (5, 1))
        hits[method] = random.random((5, 600)) < 1 / (1 + np.exp(-logits))
        summaries.append(_summary(method, 100 * hits[method].mean()))
    table = comparison.differences(summaries, hits)
    assert len(table) == 105
    assert dict(table["question"].value_counts()) == {
        comparison.EXPLORATORY: 79, comparison.HELPS: 14, comparison.WHICH: 12,
    }  # fmt: skip
    assert (table["p_holm"].notna() == (table["question"] != comparison.EXPLORATORY)).all()
    (row,) = comparison.asked(table, [("more_real", "none")])
    assert 6 < row["difference"] < 14 and row["p_holm"] < 1e-3 and comparison.better(row)
    for question in (comparison.HELPS, comparison.WHICH):
        rows = table[table["question"] == question]
        assert list(rows["p_holm"]) == pytest.approx(comparison.holm(list(rows["p"])), abs=2e-5)


@pytest.mark.middle  # takes seconds
def test_corrected_p_values_are_rarely_wrong_about_any_method():
    """Six methods as good as the target data alone, 100 studies: in one of twenty, at most, any is called better
    or worse."""
    random = np.random.default_rng(4)
    methods = ["none", *(f"g{k}" for k in range(6))]
    wrong = 0
    for _ in range(100):
        easy = random.normal(1, 1.5, 200)
        logits = {method: easy + random.normal(0, 0.7, 200) + random.normal(0, 0.15, (5, 1)) for method in methods}
        hits = {method: random.random((5, 200)) < 1 / (1 + np.exp(-each)) for method, each in logits.items()}
        table = comparison.differences([_summary(method) for method in methods], hits)
        wrong += (table["p_holm"] < comparison.LEVEL).any()
    assert wrong <= 12  # 5 expected, standard deviation 2


def test_holm_worked_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1, never less than one before
    assert comparison.holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert comparison.holm([0.9, 0.8]) == [1.0, 1.0]
    assert comparison.holm([]) == []


def test_differences_without_spread_or_with_one_run():
    same = {"a": np.ones((2, 5), bool), "b": np.zeros((2, 5), bool), "c": np.ones((2, 5), bool)}
    table = comparison.differences([_summary(method) for method in same], same)
    assert list(table["p"]) == [0, 1, 0]
    assert list(table["low"]) == [100, 0, -100]
    single = comparison.differences([_summary("a"), _summary("none")], {"a": _hits(60), "none": _hits(59)})
    assert single["difference"][0] == 1
    assert single[["low", "high", "t", "p", "p_holm"]].isna().all(axis=None)
    assert comparison.answer([_summary("a"), _summary("none")], single)["verdict"].startswith("Neither")
    assert comparison.differences([_summary("a")], {"a": _hits(1.0)}).empty


def test_differences_are_turned_round():
    hits = {"a": _hits(60, 62), "b": _hits(61, 62.4), "c": _hits(50, 52.5)}
    table = comparison.differences([_summary(method) for method in hits], hits)
    first, second = comparison.asked(table, [("b", "a"), ("b", "c")])
    assert (first["method"], first["other"], first["difference"]) == ("b", "a", pytest.approx(0.7))
    assert (first["low"], first["high"]) == (-table["high"][0], -table["low"][0])
    assert (second["method"], second["other"], second["t"]) == ("b", "c", table["t"][2])


def test_runs_on_other_test_images_are_no_comparison(tmp_path):
    for name, ids in {"a": ["1", "2"], "b": ["2", "1"]}.items():
        pd.DataFrame({"image_id": ids, "correct": [True, False]}).to_parquet(tmp_path / name)
    hits = comparison.read_hits({"m": [tmp_path / "a", tmp_path / "a"]})
    assert hits["m"].tolist() == [[True, False]] * 2
    with pytest.raises(ValueError, match="b is of other test images than .*a"):
        comparison.read_hits({"m": [tmp_path / "a"], "n": [tmp_path / "b"]})


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
    """Against numpy on nothing but what the classifiers said."""
    paths, truth, said = predicted
    summaries = []
    for method in METHODS:
        runs = [pd.read_parquet(path) for path in paths[method]]
        metrics = [
            {"accuracy": 100 * run["correct"].mean(), "best_validation_accuracy": 50.0, "epochs": 1, "at_cap": False}
            | {"n_test": 60, "n_classes": 3, "n_train": 90, "steps": 12, "images_seen": 90}
            for run in runs
        ]
        row = {"title": method, "family": "prompting", "start": STARTS.get(method, "noise")}
        facts = {"train": 90, "tested": 60}
        summaries.append(summarise(method, row, {1.0: metrics}, {1.0: []}, None, **facts))
    rates = {method: 100 * (arrays == truth).mean(axis=1) for method, arrays in said.items()}

    table = table1(summaries, pd.DataFrame({"method": [], "accuracy": [], "se": []})).set_index("method")
    for method in METHODS:
        assert table.loc[method, "accuracy_mean"] == pytest.approx(rates[method].mean(), abs=1e-4)
        assert table.loc[method, "accuracy_se"] == pytest.approx(rates[method].std(ddof=1) / 2, abs=1e-4)

    found = comparison.differences(summaries, comparison.read_hits(paths))
    assert len(found) == 6
    for row in found.itertuples():
        gap = rates[row.method].mean() - rates[row.other].mean()
        assert row.difference == pytest.approx(gap, abs=1e-4)
        error = (row.high - row.low) / 2 / stats.t.ppf(0.975, row.df)
        over_runs = sum(rates[method].var(ddof=1) / 4 for method in (row.method, row.other))
        assert error > 0.999 * math.sqrt(over_runs)
        assert row.p == pytest.approx(2 * stats.t.sf(abs(gap) / error, row.df), abs=1e-3)


def test_classes_equal_those_recomputed_from_the_predictions(predicted):
    paths, truth, said = predicted
    accuracies, confusions = per_class.measure(paths)
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
    accuracies, _ = per_class.measure(predicted[0])
    means = accuracies.pivot(index="class", columns="method", values="accuracy_mean")
    table = per_class.improvements(accuracies, ["retrieval", "prompts"], "none")
    for method, part in table.groupby("method"):
        gains = means[method] - means["none"]
        assert list(part["class"]) == list(gains.sort_values().index)
        assert list(part["improvement"]) == pytest.approx(sorted(gains))
        assert list(part["rank"]) == [0, 1, 2]


def test_a_perfect_classifier_confuses_nothing(tmp_path):
    table = pd.DataFrame({"class": ["a", "b"], "predicted": ["a", "b"], "correct": [True, True]})
    table.to_parquet(tmp_path / "p.parquet")
    accuracies, confusions = per_class.measure({"m": [tmp_path / "p.parquet"]})
    assert list(accuracies["accuracy_mean"]) == [100, 100]
    assert accuracies["accuracy_se"].isna().all()
    assert confusions.empty


def test_what_trains_harder_on_the_target_alone_is_a_method_like_others():
    harder = _summary("none", 95) | {"method": "randaugment", "title": "RandAugment", "augment": "randaugment"}
    summaries = [harder, _summary("none", 60), _summary("r", 70), _summary("g", 65)]
    pairs = comparison.questions(summaries)
    assert pairs[comparison.HELPS] == [("randaugment", "none"), ("r", "none"), ("g", "none")]
    assert comparison.questions([harder, _summary("g")])[comparison.HELPS] == []
    answer = comparison.answer(summaries, _table(summaries, {}))
    assert answer["winners"] == ["r"]
    assert answer["sentence"].endswith("; for comparison, RandAugment (95.0\xa0±\xa00.1%); None (60.0\xa0±\xa00.1%).")
