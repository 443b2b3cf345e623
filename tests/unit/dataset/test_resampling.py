"""Resampled sets against counts worked by hand."""

import pandas as pd
import pytest

from augbench import images
from augbench.dataset.resampling import draw, write_sets

COUNTS = {"crow": 4, "owl": 9}
KEY = (7, "resample", "clip_prompts")


def resample(added, counts, **settings):
    return [added.iloc[places].reset_index(drop=True) for places in draw(added, counts, **settings)]


def pool(**sizes):
    return images.table(
        {"image_id": f"{key}-{i:02}", "class": key, "path": "x", "similarity": (i * 7 % 10) / 10}
        for key, size in sizes.items()
        for i in range(size)
    )


@pytest.mark.parametrize(
    ("ratio", "crows", "owls"),
    [(1.0, 4, 9), (0.5, 2, 4), (2.0, 8, 18), (0.1, 1, 1), (0.3, 1, 3)],  # 0.5 x 9 = 4.5 -> 4, as round does
)
def test_each_class_gets_its_share_of_its_own_count(ratio, crows, owls):
    for split in resample(pool(crow=20, owl=20, tit=5), COUNTS, ratio=ratio, splits=3, order="random", seed_key=KEY):
        assert split["class"].value_counts().to_dict() == {"crow": crows, "owl": owls}
        assert split["image_id"].is_unique
        assert split.dtypes.equals(pool(crow=1).dtypes)


def test_random_splits_differ_and_do_not_depend_on_row_order_or_on_other_classes():
    added = pool(crow=20, owl=20)
    one = resample(added, COUNTS, ratio=1, splits=5, order="random", seed_key=KEY)
    assert len({tuple(split["image_id"]) for split in one}) == 5
    shuffled = pd.concat([added.sample(frac=1, random_state=3), pool(tit=5)])
    for mine, other in zip(
        one, resample(shuffled, COUNTS, ratio=1, splits=5, order="random", seed_key=KEY), strict=True
    ):
        pd.testing.assert_frame_equal(mine, other)
    alone = resample(added, {"owl": 9}, ratio=1, splits=1, order="random", seed_key=KEY)[0]
    assert set(alone["image_id"]) == set(one[0].loc[one[0]["class"] == "owl", "image_id"])
    reseeded = resample(added, COUNTS, ratio=1, splits=1, order="random", seed_key=(8, *KEY[1:]))[0]
    assert set(reseeded["image_id"]) != set(one[0]["image_id"])


def test_random_draws_reach_every_image_about_equally_often():
    splits = resample(pool(crow=8), {"crow": 4}, ratio=1, splits=400, order="random", seed_key=KEY)
    counts = pd.concat(splits)["image_id"].value_counts()
    assert len(counts) == 8
    assert counts.between(150, 250).all()  # 200 expected, standard deviation 10


def test_listed_takes_the_first_of_each_class_for_every_split():
    added = pool(crow=20, owl=9).sample(frac=1, random_state=1)
    first, second = resample(added, COUNTS, ratio=1, splits=2, order="listed", seed_key=KEY)
    for key, count in COUNTS.items():
        mine = list(first.loc[first["class"] == key, "image_id"])
        assert mine == list(added.loc[added["class"] == key, "image_id"])[:count]
    pd.testing.assert_frame_equal(first, second)


def test_of_listed_images_a_class_with_too_few_is_left_out():
    (split,) = resample(pool(crow=20, owl=17), COUNTS, ratio=2, splits=1, order="listed", seed_key=KEY)
    assert split["class"].value_counts().to_dict() == {"crow": 8}
    with pytest.raises(ValueError, match="no class has as many images as ratio 6 wants"):
        resample(pool(crow=20, owl=17), COUNTS, ratio=6, splits=1, order="listed", seed_key=KEY)


def test_all_takes_everything_of_the_known_classes():
    (split,) = resample(pool(crow=7, owl=3, tit=2), COUNTS, ratio=1, splits=1, order="all", seed_key=KEY)
    assert split["class"].value_counts().to_dict() == {"crow": 7, "owl": 3}


def test_too_few_images_are_named():
    with pytest.raises(ValueError, match=r"'owl': 18 images are wanted, there are 17"):
        resample(pool(crow=20, owl=17), COUNTS, ratio=2, splits=1, order="random", seed_key=KEY)
    with pytest.raises(ValueError, match=r"'owl'.*none"):
        resample(pool(crow=20), COUNTS, ratio=1, splits=1, order="all", seed_key=KEY)


def test_order_must_be_known():
    with pytest.raises(ValueError, match="random, listed, all"):
        resample(pool(crow=20), COUNTS, ratio=1, splits=1, order="nearest", seed_key=KEY)


def test_where_fewer_are_allowed_a_class_with_too_few_gives_all_it_has():
    few = pool(crow=3, owl=20)
    for split in resample(few, COUNTS, ratio=1, splits=2, order="random", seed_key=KEY, allow_fewer=True):
        assert split["class"].value_counts().to_dict() == {"crow": 3, "owl": 9}
    (none,) = resample(pool(owl=1), COUNTS, ratio=1, splits=1, order="random", seed_key=KEY, allow_fewer=True)
    assert none["class"].value_counts().to_dict() == {"owl": 1}


@pytest.mark.parametrize("order", ["random", "listed", "all"])
def test_sets_are_written_from_several_tables_with_the_bytes_of_a_table_that_is_written_as_a_whole(tmp_path, order):
    """Two tables with the images of three candidates, of which one was chosen; every column arrives, nulls too."""
    every = pd.concat(
        [pool(crow=12, owl=15, tit=3).assign(candidate=name, prompt="of " + name) for name in "abc"], ignore_index=True
    )
    every["image_id"] += "/" + every["candidate"]
    every.loc[::2, ["offset", "length"]] = [512, 99]
    every = every.sample(frac=1, random_state=0, ignore_index=True)
    images.write(tmp_path / "0.parquet", every.iloc[:70])
    images.write(tmp_path / "1.parquet", every.iloc[70:])
    settings = {"ratio": 1, "order": order, "seed_key": KEY}
    paths = [tmp_path / f"split-{k}.parquet" for k in (1, 2)]
    write_sets(paths, [tmp_path / "0.parquet", tmp_path / "1.parquet"], COUNTS, candidate="b", **settings)
    chosen = every[every["candidate"] == "b"].reset_index(drop=True)
    for path, split in zip(paths, resample(chosen, COUNTS, splits=2, **settings), strict=True):
        images.write(tmp_path / "wanted.parquet", split)
        assert path.read_bytes() == (tmp_path / "wanted.parquet").read_bytes()


def test_an_image_that_two_tables_have_is_named(tmp_path):
    images.write(tmp_path / "0.parquet", pool(crow=4, owl=9))
    with pytest.raises(ValueError, match="image_id 'crow-00' occurs twice"):
        write_sets([tmp_path / "s.parquet"], 2 * [tmp_path / "0.parquet"], COUNTS, ratio=2, order="all", seed_key=KEY)
