"""The Fréchet distance against its formula with a matrix square root, and cases worked by hand."""

import numpy as np
import pandas as pd
import pytest

from augbench.report import domain_gap


def test_it_is_the_formula():
    from scipy.linalg import sqrtm

    random = np.random.default_rng(0)
    one, two = random.normal(size=(60, 5)) @ random.normal(size=(5, 5)), random.normal(1, 2, (80, 5))
    first, second = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    wanted = np.square(one.mean(0) - two.mean(0)).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert domain_gap.frechet_distance(one, two) == pytest.approx(wanted)


def test_a_shift_counts_its_square_and_a_set_has_no_distance_to_itself():
    features = np.random.default_rng(1).normal(size=(50, 3))
    moved = features + np.array([3, 0, 4])
    assert domain_gap.frechet_distance(features, moved) == pytest.approx(25)
    assert domain_gap.frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


def test_fewer_images_than_features_are_no_problem():
    few = np.random.default_rng(2).normal(size=(4, 30))
    assert domain_gap.frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two images"):
        domain_gap.frechet_distance(few[:1], few)


def test_sets_are_averaged_and_equal_ones_counted_once():
    value = {f"real{i}": i for i in range(4)} | {"a": 0, "b": 2, "c": 10, "d": 12}

    def look(table):
        numbers = np.array([[value[image]] for image in table["image_id"]], float)
        return numbers, numbers[:, 0] < 11

    def table(*names):
        return pd.DataFrame({"image_id": names})

    reference = table("real0", "real1", "real2", "real3")
    sets = {"m": [table("a", "b"), table("c", "d"), table("c", "d")]}
    row = domain_gap.measure(sets, reference, look, 96.25).iloc[0]
    spread, own = np.sqrt(5 / 3), np.sqrt(2)  # standard deviations of 0..3 and of two numbers that differ by 2
    shape = (spread - own) ** 2
    assert row["frechet_distance"] == pytest.approx(((1.5 - 1) ** 2 + (1.5 - 11) ** 2) / 2 + shape, abs=1e-3)
    assert (row["recognised"], row["images"], row["sets"], row["recognised_test"]) == (75, 2, 2, 96.25)


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
