"""Which images retrieval takes, in made-up pools of which all is known, without CLIP, web and safety checker."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from retrieving import NAMES, retrieve_into

from augbench import images
from augbench.dataset import exclusion, resampling
from augbench.jobs import checks
from augbench.study import config

SETTINGS = {"overfetch": 1.5, "overfetch_max": 12, "min_aesthetic": 5, "duplicate_threshold": 0.9}
SETTINGS |= {"min_image_size": 8, "max_pixels": 10**6}


class Trusting:
    """A safety checker that refuses nothing."""

    def unsafe(self, pictures):
        return [False] * len(pictures)


class Pool:
    """Pictures of one colour each, and for each query the ids of its neighbours, the best first."""

    def __init__(self, folder, neighbours, aesthetic=6.0, dead=(), same=()):
        self.folder, self.lists, self.aesthetic, self.dead = folder, neighbours, aesthetic, set(dead)
        self.groups, self.asked, self.identity = dict(same), [], [str(folder)]
        folder.mkdir(exist_ok=True)

    def neighbours(self, queries, counts, threshold, *, diversity=0.0, among=()):
        for query, count in zip(queries, counts, strict=True):
            self.asked.append((query, count))
            facts = self.lists[query][:count]
            table = pd.DataFrame(facts, columns=["id", "similarity"])
            table = table.assign(
                url=None, caption="", aesthetic=self.aesthetic, path=[self._path(i) for i in table["id"]]
            )
            ids = set(table["id"])
            first = [of if (of := self.groups.get(i)) in ids and of != i else None for i in table["id"]]
            table["duplicate_of"] = pd.array(first, "Int64")
            yield table.assign(
                offset=pd.array([None] * len(table), "Int64"), length=pd.array([None] * len(table), "Int64")
            )

    def _path(self, number):
        path = self.folder / f"{number}.png"
        if not path.exists():
            colour = (number % 256, number // 256, 7)
            Image.new("RGB", (2, 2) if number in self.dead else (16, 16), colour).save(path)
        return str(path)


def run(pool, folder, counts, score=None, main=None, **changes):
    """Retrieve; returns ledger and image table."""
    wanted = pd.DataFrame({"class": list(counts), "query": list(counts), "count": list(counts.values())})
    settings = config.Retrieval(**SETTINGS | changes)
    main = main if main is None else main[main["fate"] == "used"]
    paths = retrieve_into(folder, wanted, pool, Trusting(), settings, score=score, main=main)
    return pd.read_parquet(paths.ledger), images.read(paths.images)


def used(ledger):
    ledger = ledger[ledger["fate"] == "used"]
    return {key: set(rows["id"]) for key, rows in ledger.groupby("class")}


def ranked(*ids, best=0.9):
    return [(i, best - 0.001 * rank) for rank, i in enumerate(ids)]


# --- how far a class is searched ------------------------------------------------------------------------


def test_a_class_that_loses_images_to_another_is_searched_again(tmp_path):
    """``a`` is full after its first search. ``b``'s own first 20 neighbours are too small; its widest search brings six
    good ones that are ``a``'s, and more similar to ``b``. There are 24 further good ones for ``a``."""
    small, shared, further = range(100, 120), range(6), range(10, 34)
    pool = Pool(tmp_path / "pool", {"a": ranked(*shared, *further, best=0.5), "b": ranked(*small, *shared)}, dead=small)
    ledger, table = run(pool, tmp_path, {"a": 4, "b": 4})
    assert used(ledger) == {"a": {4, 5, 10, 11}, "b": {0, 1, 2, 3}}
    assert exclusion.shortfall({"x": ledger}, {"a": 4, "b": 4}) == {}
    assert table["class"].value_counts().to_dict() == {"a": 4, "b": 4}
    assert [count for query, count in pool.asked if query == "a"] == [6, 12]  # no further than it needs


def brute_force(lists, counts):
    """Images that each class gets when all is known: the one best pair of class and image after the other."""
    pairs = [
        (-similarity, place, rank, key, i)
        for place, key in enumerate(lists)
        for rank, (i, similarity) in enumerate(lists[key])
    ]
    gained, taken = {key: set() for key in lists}, set()
    for _, _, _, key, i in sorted(pairs):
        if i not in taken and len(gained[key]) < counts[key]:
            gained[key].add(i)
            taken.add(i)
    return gained


@pytest.mark.parametrize("seed", range(6))
def test_no_class_is_short_while_its_widest_search_has_images(tmp_path, seed):
    """Four classes that share neighbours, against a greedy choice over all pairs. If not all could be filled,
    those that are short have been searched as far as they may be."""
    random = np.random.default_rng(seed)
    counts = dict(zip("abcd", (3, 3, 4, 2), strict=True))
    lists, most = {}, {key: 12 * count for key, count in counts.items()}
    for key in counts:
        ids = random.permutation(40)[: most[key]]
        lists[key] = sorted(
            ((int(i), float(s)) for i, s in zip(ids, random.random(len(ids)), strict=True)), key=lambda pair: -pair[1]
        )
    ledger, _ = run(pool := Pool(tmp_path / "pool", lists, dead=range(20)), tmp_path, counts)
    found, good = used(ledger), {key: [pair for pair in pairs if pair[0] >= 20] for key, pairs in lists.items()}
    for key, count in counts.items():
        if len(found.get(key, ())) < count:
            assert max(number for query, number in pool.asked if query == key) == most[key]
    if all(len(found.get(key, ())) == count for key, count in counts.items()):
        # What was searched decides; over these lists the choice is the greedy one.
        asked = {key: max(number for query, number in pool.asked if query == key) for key in counts}
        seen = {key: [pair for pair in lists[key][: asked[key]] if pair in good[key]] for key in counts}
        assert found == brute_force(seen, counts)


# --- aesthetic scores -----------------------------------------------------------------------------------


def test_missing_scores_do_not_switch_the_filter_off(tmp_path):
    pool = Pool(tmp_path / "pool", {"a": ranked(*range(20))}, aesthetic=float("nan"))
    with pytest.raises(
        ValueError, match="no image of the pool has an aesthetic score.*aesthetic_model: HEAD.pth.*null"
    ):
        run(pool, tmp_path, {"a": 3})
    ledger, _ = run(pool, tmp_path, {"a": 3}, min_aesthetic=None)
    assert used(ledger) == {"a": {0, 1, 2}}


def test_an_image_without_a_score_among_others_is_not_used(tmp_path):
    pool = Pool(tmp_path / "pool", {"a": ranked(*range(4))}, aesthetic=[6.0, float("nan"), 4.9, 5.0])
    ledger, _ = run(pool, tmp_path, {"a": 2}, overfetch=2, overfetch_max=2)
    assert ledger["fate"].tolist() == ["used", "unscored", "unaesthetic", "used"]


def test_pictures_are_scored_where_there_is_a_head(tmp_path):
    """By what the pictures show, whatever the pool says of them: red is the id."""
    pool = Pool(tmp_path / "pool", {"a": ranked(*range(8))}, aesthetic=9.0)

    def score(pictures):
        return [float(picture.getpixel((0, 0))[0]) for picture in pictures]

    ledger, _ = run(pool, tmp_path, {"a": 2}, overfetch=4, overfetch_max=4, score=score)
    assert ledger["aesthetic"].tolist() == list(range(8))
    assert ledger["fate"].tolist() == ["unaesthetic"] * 5 + ["used"] * 2 + ["spare"]
    ledger, _ = run(pool, tmp_path, {"a": 2}, overfetch=4, overfetch_max=4, score=score, min_aesthetic=None)
    assert used(ledger) == {"a": {0, 1}}


def pool_of(folder, source, kind, columns):
    """A folder as a pool of this source has it, with one row of metadata."""
    import faiss
    import h5py
    import numpy as np
    import pyarrow as pa
    from PIL import Image

    table = pd.DataFrame({name: ["x" if name == "url" else 6.0] for name in columns})
    (folder / "metadata").mkdir(parents=True)
    index = faiss.IndexFlatIP(4)
    index.add(np.ones((1, 4), np.float32))
    faiss.write_index(index, str(folder / "image.index"))
    Image.new("RGB", (4, 4)).save(folder / "image.png")
    if kind == "hdf5":
        with h5py.File(folder / "metadata.hdf5", "w") as file:
            for name in columns:
                file[f"dataset/{name}"] = table[name].tolist()
    elif kind == "arrow":
        rows = pa.Table.from_pandas(table)
        with pa.ipc.new_file(str(folder / "metadata" / "0.arrow"), rows.schema) as writer:
            writer.write_table(rows)
    else:
        table.to_parquet(folder / "metadata" / "0.parquet")
        table.to_parquet(folder / "0.parquet")
    return config.Pool(source=source, path=str(folder))


@pytest.mark.parametrize(
    ("source", "kind"),
    [("index", "hdf5"), ("index", "arrow"), ("index", "parquet"), ("urls", "parquet"), ("folder", "parquet")],
)
def test_a_pool_without_scores_is_refused_before_any_work_starts(tmp_path, source, kind):
    """Unless a head scores the pictures, or no score is wanted."""

    def check(pool, **retrieval):
        checks.check_pool(
            SimpleNamespace(pool=pool, clip=None, retrieval=config.Retrieval(**retrieval)), "studies.mine"
        )

    lacking = pool_of(tmp_path / "without", source, kind, ["url"])
    with pytest.raises(
        config.ConfigError, match="^studies.mine.retrieval.min_aesthetic: .* no aesthetic scores; name a mo"
    ):
        check(lacking)
    check(lacking, min_aesthetic=None)
    (tmp_path / "head.pth").touch()
    check(lacking, aesthetic_model=str(tmp_path / "head.pth"))
    if source != "folder":  # which has captions beside its images, no scores
        check(pool_of(tmp_path / "with", source, kind, ["url", "AESTHETIC_SCORE"]))


def test_a_service_goes_with_a_head():
    """It tells no embeddings, but its pictures can be scored."""
    raw = {**yaml.safe_load(open("config/methods.yaml")), **yaml.safe_load(open("config/config.yaml"))}
    study = raw["studies"]["digits"] | {"methods": ["none", "retrieval"], "clip": {"model": "ViT-L/14"}}
    study |= {"backbone": {"model": "x"}, "pool": {"source": "service", "url": "http://x", "index": "y"}}
    config.parse(raw | {"studies": {"mine": study | {"retrieval": {"aesthetic_model": "head.pth"}}}})
    with pytest.raises(
        config.ConfigError, match="retrieval_diverse needs the embeddings of the images, which a service"
    ):
        config.parse(raw | {"studies": {"mine": study | {"methods": ["none", "retrieval_diverse"]}}})
    with pytest.raises(config.ConfigError, match="retrieval_captions matches captions of the whole pool, which a serv"):
        config.parse(raw | {"studies": {"mine": study | {"methods": ["none", "retrieval_captions"]}}})


# --- more than the main ratio wants ---------------------------------------------------------------------


def bytes_in(folder):
    return {name: (folder / name).read_bytes() for name in NAMES}


def test_further_ratios_add_to_what_the_main_one_used(tmp_path):
    """Two classes that want each other's images, and duplicates that only a wider search brings: what the main ratio
    used stays as it is, no image is used twice, and no duplicate of one that is."""
    lists = {"a": ranked(*range(0, 60)), "b": ranked(*range(20, 60), *range(0, 20), best=0.899)}
    # Four are alike; the wider search of ``a`` takes 25 for their first, and the main ratio used 1 before it was met.
    pool = Pool(tmp_path / "pool", lists, same=[(1, 25), (16, 25), (17, 25)])
    main, first = run(pool, tmp_path / "main", {"a": 5, "b": 5})
    before = bytes_in(tmp_path / "main")
    further, second = run(pool, tmp_path / "further", {"a": 20, "b": 20}, main=main)
    assert bytes_in(tmp_path / "main") == before
    both = pd.concat([first, second], ignore_index=True)
    assert both["class"].value_counts().to_dict() == {"a": 20, "b": 20}
    assert not both["sha256"].duplicated().any()
    assert not both["image_id"].duplicated().any()
    assert 1 in used(main)["a"]
    assert further[(further["class"] == "a") & further["id"].isin([16, 17, 25])]["reason"].eq("of 1").all()
    assert further.loc[further["id"].isin(used(main)["a"] | used(main)["b"]), "fate"].eq("taken").all()
    counts = {"a": 5, "b": 5}
    alone = first.iloc[resampling.draw(first, counts, ratio=1, splits=1, order="listed", seed_key=(1,))[0]]
    with_more = both.iloc[resampling.draw(both, counts, ratio=1, splits=1, order="listed", seed_key=(1,))[0]]
    assert list(alone["image_id"]) == list(with_more["image_id"])
    wide = both.iloc[resampling.draw(both, counts, ratio=4, splits=1, order="listed", seed_key=(1,))[0]]
    assert set(wide["image_id"]) == set(both["image_id"])


def test_the_same_bytes_at_another_place_are_not_used_again(tmp_path):
    pool = Pool(tmp_path / "pool", {"a": ranked(*range(12))})
    main, _ = run(pool, tmp_path / "main", {"a": 2})
    data = io.BytesIO()
    Image.new("RGB", (16, 16), (0, 0, 7)).save(data, "PNG")
    (tmp_path / "pool" / "2.png").write_bytes(data.getvalue())  # now the image 0
    further, _ = run(pool, tmp_path / "further", {"a": 4}, main=main)
    assert used(further) == {"a": {3, 4}}
    assert further.set_index("id").loc[2, ["fate", "reason"]].tolist() == ["taken", "used for a"]
