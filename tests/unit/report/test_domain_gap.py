"""The Fréchet distance against its formula with a matrix square root, and cases worked by hand."""

import numpy as np
import pandas as pd
import pytest

from augbench import images
from augbench.classifier import scoring
from augbench.core import files
from augbench.report import domain_gap
from augbench.report.moments import Moments, frechet_distance


def moments(features, batch=7):
    """Moments of features that come in batches."""
    accumulated = Moments()
    for start in range(0, len(features), batch):
        accumulated.add(features[start : start + batch])
    return accumulated


def directly(one, two):
    """The formula on all features together, by a matrix square root."""
    from scipy.linalg import sqrtm

    first, second = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    shift = np.square(one.mean(0) - two.mean(0)).sum()
    return shift + np.trace(first + second - 2 * sqrtm(first @ second).real)


def test_it_is_the_formula():
    random = np.random.default_rng(0)
    one, two = random.normal(size=(60, 5)) @ random.normal(size=(5, 5)), random.normal(1, 2, (80, 5))
    for batch in (1, 7, 100):
        assert frechet_distance(moments(one, batch), moments(two, batch)) == pytest.approx(directly(one, two))


def test_features_of_single_precision_lose_nothing_by_coming_in_batches():
    """As of a network: not negative, far from zero against their spread, in batches; to 1e-6 of the formula."""
    random = np.random.default_rng(3)
    mixing = random.normal(size=(32, 32)) / 8
    one, two = ((100 + random.normal(size=(4000, 32)) @ mixing + k).astype(np.float32) for k in (0, 0.1))
    wanted = directly(one.astype(float), two.astype(float))
    assert frechet_distance(moments(one, 256), moments(two, 256)) == pytest.approx(wanted, rel=1e-6)


def test_moments_are_those_of_numpy_of_the_rows_that_are_meant():
    features = np.random.default_rng(4).normal(5, 2, (40, 3))
    mine = np.arange(40) % 3 == 0
    accumulated = Moments()
    accumulated.add(features[:2], np.zeros(2, bool))
    for start in range(0, 40, 11):
        accumulated.add(features[start : start + 11], mine[start : start + 11])
    assert accumulated.count == 14
    assert accumulated.mean() == pytest.approx(features[mine].mean(0))
    assert accumulated.covariance() == pytest.approx(np.cov(features[mine], rowvar=False))


def test_a_shift_counts_its_square_and_a_set_has_no_distance_to_itself():
    features = np.random.default_rng(1).normal(size=(50, 3))
    moved = features + np.array([3, 0, 4])
    assert frechet_distance(moments(features), moments(moved)) == pytest.approx(25)
    assert frechet_distance(moments(features), moments(features)) == pytest.approx(0, abs=1e-9)


def test_fewer_images_than_features_are_no_problem():
    few = np.random.default_rng(2).normal(size=(4, 30))
    assert frechet_distance(moments(few), moments(few)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two images"):
        frechet_distance(moments(few[:1]), moments(few))


def test_sets_are_averaged_and_equal_ones_counted_once():
    numbers = np.array([[0], [2], [10], [12]], float)
    batches = [(numbers[:3], numbers[:3, 0] < 11), (numbers[3:], numbers[3:, 0] < 11)]
    real = domain_gap.moments_of([(np.arange(4.0)[:, None], None)])
    gap = domain_gap.measure([np.array(places) for places in ([0, 1], [2, 3], [2, 3])], batches, real)
    spread, own = np.sqrt(5 / 3), np.sqrt(2)  # standard deviations of 0..3 and of two numbers that differ by 2
    shape = (spread - own) ** 2
    row = domain_gap.table({"m": gap}, 96.25).iloc[0]
    assert row["frechet_distance"] == pytest.approx(((1.5 - 1) ** 2 + (1.5 - 11) ** 2) / 2 + shape, abs=1e-3)
    assert (row["recognised"], row["images"], row["sets"], row["recognised_test"]) == (75, 2, 2, 96.25)


def test_a_killed_measurement_goes_on_with_the_next_method(tmp_path, monkeypatch):
    """Of two methods the first is measured, and is not looked at again; nothing of it stays when the table is there."""
    rows = [{"image_id": f"{k}", "class": "a", "path": f"{k}"} for k in range(9)]
    sets = {"test": rows[:3], "one": rows[3:6], "two": rows[6:]}
    for name, mine in sets.items():
        images.write(tmp_path / f"{name}.parquet", images.table(mine))
    (tmp_path / "classes.csv").write_text("class,lemmas,hypernyms,definition,train,excluded\na,a,,,3,\n")
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "best.safetensors").write_bytes(b"")
    files.write_json(tmp_path / "judge" / "metrics.json", {"accuracy": 50})
    looked_at = []

    def examiner(folder, classes, settings):
        def examine(table):
            numbers = table["image_id"].astype(int).to_numpy()
            looked_at.append(int(numbers[0]))
            if looked_at == [0, 3, 6]:
                raise KeyboardInterrupt
            yield numbers[:, None].astype(float), numbers > 3

        return examine

    monkeypatch.setattr(scoring, "examiner", examiner)
    paths = {name: str(tmp_path / f"{name}.parquet") for name in sets}
    arguments = tmp_path / "gap.csv", tmp_path / "metrics.csv", ["one", "two"], {"model": "small_cnn"}, "classifier", 1
    keywords = {"classes": tmp_path / "classes.csv", "test": paths["test"], "added": [paths["one"], paths["two"]]}
    keywords |= {"metrics": tmp_path / "judge/metrics.json", "weights": tmp_path / "judge/best.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        domain_gap.write(*arguments, **keywords)
    domain_gap.write(*arguments, **keywords)
    assert looked_at == [0, 3, 6, 0, 6]
    gap = pd.read_csv(tmp_path / "gap.csv").set_index("method")
    assert gap["frechet_distance"].to_dict() == {"one": 9, "two": 36}
    assert gap["recognised"].to_dict() == {"one": pytest.approx(66.6667), "two": 100}
    assert pd.read_csv(tmp_path / "metrics.csv")["kid"].isna().all()  # sets of three images
    assert sorted(path.name for path in (tmp_path / "judge").iterdir()) == ["best.safetensors", "metrics.json"]


def test_metrics_are_of_features_that_the_gap_has_seen_or_of_another_encoder(tmp_path):
    """Samples of one size of a method's first set; every image passes the judge once."""
    rows = [{"image_id": f"{k}", "class": "a", "path": f"{k}"} for k in range(300)]
    tables = {"test": rows[:100], "first": rows[100:160], "second": rows[130:190], "few": rows[190:193]}
    for name, mine in tables.items():
        images.write(tmp_path / name, images.table(mine))
    seen, embedded = [], []

    def features(table):
        numbers = table["image_id"].astype(int).to_numpy()
        return np.random.default_rng(0).normal(size=(300, 3))[numbers]

    def examine(table):
        seen.extend(table["image_id"])
        for start in range(0, len(table), 32):
            batch = features(table.iloc[start : start + 32])
            yield batch, np.ones(len(batch), bool)

    def embed(table):
        embedded.extend(table["image_id"])
        return features(table)

    def measured(embed, size=50):
        measurer = domain_gap.Measurer(examine, embed, images.read_columns(tmp_path / "test"), size, 1)
        sets = {"mine": ["first", "second"], "scarce": ["few", "few"]}
        return {method: measurer.measure(method, [tmp_path / name for name in names]) for method, names in sets.items()}

    by_judge = measured(None)
    assert len(seen) == len(set(seen)) == 193
    assert by_judge == measured(embed)
    assert len(embedded) == 100 and sum(100 <= int(name) < 160 for name in embedded) == 50
    assert by_judge["scarce"][1] is None and measured(None, 0)["mine"] == (by_judge["mine"][0], None)
    assert by_judge["mine"][1].vendi > 2 and abs(by_judge["mine"][1].kid) < 1


def some(name, **counts):
    return pd.DataFrame(
        [{"image_id": f"{name}/{key}-{i}", "class": key} for key, n in counts.items() for i in range(n)]
    )


def test_the_judge_learns_from_images_that_no_method_adds_or_starts_from():
    """Twice the training images of each class, where so many are in reserve; the validation images end its training."""
    reserve, validation = some("unused", a=50, b=11), some("validation", a=5, b=5)
    learnt, held_out = domain_gap.judge_sets(reserve, validation, {"a": 10, "b": 8}, 1)
    assert learnt["class"].value_counts().to_dict() == {"a": 20, "b": 11}
    assert learnt["image_id"].is_unique and set(learnt["image_id"]) <= set(reserve["image_id"])
    assert held_out is validation
    again, _ = domain_gap.judge_sets(reserve.sample(frac=1, random_state=0), validation, {"a": 10, "b": 8}, 1)
    assert again["class"].value_counts().to_dict() == {"a": 20, "b": 11}


def test_without_a_reserve_the_validation_images_stand_in():
    validation = some("validation", a=10, b=1)
    for reserve in (some("unused", a=50, b=7), some("unused", a=0)):
        reserve = reserve.reindex(columns=["image_id", "class"])
        learnt, held_out = domain_gap.judge_sets(reserve, validation, {"a": 10, "b": 8}, 1)
        assert learnt["class"].value_counts().to_dict() == {"a": 8, "b": 1}
        assert held_out["class"].value_counts().to_dict() == {"a": 2}
        assert not set(learnt["image_id"]) & set(held_out["image_id"])
    learnt, held_out = domain_gap.judge_sets(reserve, some("validation", a=1, b=1), {"a": 10, "b": 8}, 1)
    assert set(learnt["image_id"]) == set(held_out["image_id"])
