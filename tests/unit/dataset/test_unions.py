"""Sets of a union against shares worked by hand, and against the sets that they are drawn from."""

import numpy as np
import pandas as pd
import pytest

from augbench import images
from augbench.dataset.unions import Part, allocate, draw, write_sets

HALVES = [Part("retrieval", "1/2", "listed"), Part("clip_prompts", "1/2")]
KEY = (7, "unite", "both")


@pytest.mark.parametrize(
    ("shares", "totals", "numbers"),
    [
        (("1/2", "1/2"), {"a": 4, "b": 6}, [[2, 2], [3, 3]]),
        # Equal remainders: the first part, then the one that is behind.
        (("1/2", "1/2"), {"a": 5, "b": 5, "c": 1}, [[3, 2], [2, 3], [1, 0]]),
        # 2.1, 2.1, 2.8: the largest remainder gets the image that is left.
        (("3/10", "3/10", "2/5"), {"a": 7}, [[2, 2, 3]]),
        # 0.9, 2.1: one of them.
        (("3/10", "7/10"), {"a": 3}, [[1, 2]]),
        # A third of four: 1.33 each; the one left goes to each in turn.
        (("1/3", "1/3", "1/3"), {"a": 4, "b": 4, "c": 4}, [[2, 1, 1], [1, 2, 1], [1, 1, 2]]),
        (("1",), {"a": 3}, [[3]]),
        (("333333/1000000",) * 3, {"a": 3, "b": 1}, [[1, 1, 1], [1, 0, 0]]),
    ],
)
def test_each_class_has_the_shares_by_largest_remainders(shares, totals, numbers):
    parts = [Part(f"m{k}", share) for k, share in enumerate(shares)]
    assert list(allocate(totals, parts).values()) == numbers


def test_shares_are_met_within_an_image_of_each_class_and_of_all():
    random = np.random.default_rng(0)
    totals = {f"class {k}": int(random.integers(1, 40)) for k in range(200)}
    parts = [Part("a", "1/5"), Part("b", "3/10"), Part("c", "1/2")]
    allocated = allocate(totals, parts)
    sums = np.zeros(3)
    for key, numbers in allocated.items():
        assert sum(numbers) == totals[key]
        assert all(abs(n - totals[key] * s) < 1 for n, s in zip(numbers, (0.2, 0.3, 0.5), strict=True))
        sums += numbers
    assert abs(sums / sums.sum() - [0.2, 0.3, 0.5]).max() < 0.01


def set_of(method: str, *names: str) -> pd.DataFrame:
    """Images ``CLASS NUMBER`` of a method."""
    rows = [
        {
            "image_id": f"{method}/{name}",
            "class": name[0],
            "path": f"{method}.tar",
            "prompt": name,
            "seed": int(name[1:]),
        }
        | {"offset": 512 * place, "length": 100 + place}
        for place, name in enumerate(names)
    ]
    return images.table(rows)


def written(tmp_path, sets: dict, counts, parts=HALVES, **settings) -> list[pd.DataFrame]:
    """The union's sets of sets by method, each a list of runs."""
    paths = []
    for part in parts:
        for run, table in enumerate(sets[part.method]):
            paths.append(tmp_path / part.method / f"split-{run}.parquet")
            images.write(paths[-1], table)
    runs = len(sets[parts[0].method])
    outputs = [tmp_path / "union" / f"split-{run}.parquet" for run in range(runs)]
    write_sets(outputs, paths, counts, parts=parts, **{"ratio": 1, "seed_key": KEY} | settings)
    return [images.read(path) for path in outputs]


def test_rows_are_those_of_the_methods_and_say_whose_they_are(tmp_path):
    listed = set_of("retrieval", "b3", "b1", "b2", "b0", "a9", "a1", "a5")
    sets = {"retrieval": [listed] * 2}
    sets["clip_prompts"] = [
        set_of("clip_prompts", *(f"{c}{10 * run + i}" for c in "ab" for i in range(4))) for run in (0, 1)
    ]
    unions = written(tmp_path, sets, {"a": 3, "b": 4})
    for run, union in enumerate(unions):
        assert list(union["class"]) == ["a"] * 3 + ["b"] * 4
        counts = union.groupby(["class", "method"]).size().to_dict()
        assert counts == {
            ("a", "clip_prompts"): 1,
            ("a", "retrieval"): 2,
            ("b", "clip_prompts"): 2,
            ("b", "retrieval"): 2,
        }
        # The nearest neighbours of each class, in all runs.
        nearest = list(union.loc[union["method"] == "retrieval", "image_id"])
        assert nearest == [f"retrieval/{name}" for name in ("a9", "a1", "b3", "b1")]
        for method in sets:
            mine = union[union["method"] == method].drop(columns="method").set_index("image_id")
            theirs = sets[method][run].drop(columns="method").set_index("image_id")
            pd.testing.assert_frame_equal(mine, theirs.loc[mine.index])
    assert list(unions[0]["method"][3:]) == ["retrieval", "clip_prompts"] * 2  # evenly mixed: galleries show both


def test_draws_are_seeded_and_do_not_depend_on_the_order_of_rows():
    parts = [Part("one", "1/2"), Part("two", "1/2")]
    tables = [set_of(part.method, *(f"a{i}" for i in range(20))) for part in parts]

    def names(tables, seed_key):
        drawn = draw(tables, {"a": [10, 10]}, parts, seed_key=seed_key)
        return {tables[part]["image_id"][place] for part, place in drawn.itertuples(index=False)}

    shuffled = [table.sample(frac=1, random_state=1).reset_index(drop=True) for table in tables]
    assert names(tables, (*KEY, 1)) == names(shuffled, (*KEY, 1))
    assert len({frozenset(names(tables, (*KEY, split))) for split in range(5)}) == 5
    drawn = names(tables, (*KEY, 1))
    assert {name[4:] for name in drawn if name[0] == "o"} != {name[4:] for name in drawn if name[0] == "t"}


def test_a_class_that_is_short_is_named_or_left_out_as_in_the_method_s_own_sets(tmp_path):
    sets = {
        "retrieval": [set_of("retrieval", "b1", "b2")],
        "clip_prompts": [set_of("clip_prompts", "a1", "a2", "b1", "b2")],
    }
    (union,) = written(tmp_path, sets, {"a": 4, "b": 2})
    assert union["class"].value_counts().to_dict() == {"b": 2}
    with pytest.raises(ValueError, match="class 'a': 3 images of clip_prompts are wanted, there are 2"):
        written(tmp_path, sets | {"retrieval": [set_of("retrieval", "a1", "a2", "a3", "b1")]}, {"a": 6, "b": 2})
    lenient = [HALVES[0], Part("clip_prompts", "1/2", allow_fewer=True)]
    (union,) = written(
        tmp_path, sets | {"retrieval": [set_of("retrieval", "a1", "a2", "a3", "b1")]}, {"a": 6, "b": 2}, lenient
    )
    assert union["class"].value_counts().to_dict() == {"a": 5, "b": 2}
