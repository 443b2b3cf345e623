"""Captions that name a class: whole words in each format of metadata, and the nearest of the rows that have them."""

import re
import shutil
import unicodedata

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augbench.core.files import BadInput
from augbench.models import clip
from augbench.retrieval import captions, embedding, matching, metadata, search
from augbench.retrieval import index as pool_index
from augbench.study.matches import MATCHES
from augbench.study.sections.retrieval import Pool

INDEX = Pool(source="index", path="x")
CAPTIONS = [
    "A cat on a mat",  # 0
    "three cats",
    None,
    "concatenation",
    "CAT.",  # 4
    "half-a dozen eggs",  # 5
    "half of a dozen",
    "",
    "a dozen, half",
    "Café crème",  # 9
    'the "cat" flap',  # 10
    "HALF A DOZEN",  # 11
]


def index_of(folder, kind, cells, column="caption"):
    """A clip-retrieval folder's metadata with these captions, in files of five rows."""
    (folder / "metadata").mkdir(parents=True, exist_ok=True)
    for part, start in enumerate(range(0, len(cells), 5)):
        some = cells[start : start + 5]
        table = pa.table({"url": [f"u{start + i}" for i in range(len(some))], column: pa.array(some, pa.string())})
        file = folder / "metadata" / f"{part}.{kind}"
        with (
            pa.ipc.new_file(str(file), table.schema)
            if kind == "arrow"
            else pq.ParquetWriter(file, table.schema) as writer
        ):
            writer.write_table(table)
    if kind == "hdf5":
        import h5py

        with h5py.File(folder / "metadata.hdf5", "w") as file:
            data = [cell or "" for cell in cells]
            file.create_dataset(f"dataset/{column}", data=data, dtype=h5py.string_dtype())
    return folder


def full_text(folder, pool=INDEX):
    captions.build(pool, folder, folder / "captions.sqlite")
    return captions.Captions(folder / "captions.sqlite")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "hdf5"])
def test_names_are_found_as_whole_words_in_their_order(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "BATCH", 2)
    index = full_text(index_of(tmp_path, kind, CAPTIONS, "text"))
    assert index.rows(["cat"]).tolist() == [0, 4, 10]
    assert index.rows(["cat"], 2).tolist() == [0, 4]
    assert index.rows(["half a dozen"]).tolist() == [5, 11]
    assert index.rows(["half a dozen", "Cats", "cafe"]).tolist() == [1, 5, 9, 11]
    assert index.rows(['"cat" flap']).tolist() == [10]
    for nothing in (["dog"], ["!?"], ['"'], ["cat OR dog"], ["ca*"]):
        assert index.rows(nothing).tolist() == []


def words(text):
    plain = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return re.findall(r"[^\W_]+", plain.casefold())


def says(caption, name):
    mine, wanted = words(caption), words(name)
    return any(mine[i : i + len(wanted)] == wanted for i in range(len(mine))) and bool(wanted)


TEXT = st.text(alphabet="abB é-_'\",.1", max_size=12)


@settings(deadline=None, max_examples=60)
@given(cells=st.lists(TEXT, min_size=1, max_size=12), names=st.lists(TEXT, min_size=1, max_size=3))
def test_rows_are_those_that_a_loop_over_all_words_finds(tmp_path_factory, cells, names):
    index = full_text(index_of(tmp_path_factory.mktemp("index"), "parquet", ["cat", *cells]))
    expected = [i for i, text in enumerate(["cat", *cells]) if any(says(text, name) for name in names)]
    assert index.rows(names).tolist() == expected


def test_the_same_captions_give_the_same_bytes(tmp_path):
    for name in "ab":
        full_text(index_of(tmp_path / name, "parquet", CAPTIONS))
    one, two = ((tmp_path / name / "captions.sqlite").read_bytes() for name in "ab")
    assert one == two


def test_a_pool_without_captions_says_what_to_write(tmp_path):
    with pytest.raises(BadInput, match="no image of .* has a caption by which .*: write `match: clip`"):
        full_text(index_of(tmp_path, "parquet", ["x", "y"], "title"))
    assert not (tmp_path / "captions.sqlite").exists()


def test_what_captions_may_call_a_class():
    row = {"class": "half", "lemmas": "six, half a dozen", "synonyms": "VI,, six"}
    assert MATCHES["caption"].names(row) == MATCHES["both"].names(row) == ["six", "half a dozen", "VI"]
    assert MATCHES["both"].names({"class": "a", "lemmas": "A"}) == ["A"]
    assert MATCHES["clip"].names(row) is None


# --- the nearest of the rows ----------------------------------------------------------------------------


class Vectors:
    """Planted vectors, read in blocks of three."""

    def __init__(self, vectors):
        self.vectors, self.width, self.read = vectors, vectors.shape[1], []

    def vectors_of(self, ids):
        for start in range(0, len(ids), 3):
            self.read += list(ids[start : start + 3])
            yield self.vectors[ids[start : start + 3]]


def test_the_nearest_of_some_rows_are_those_of_a_sort():
    random = np.random.default_rng(0)
    vectors = random.integers(-2, 3, (40, 4)).astype(np.float32)  # with ties
    queries = random.integers(-2, 3, (3, 4)).astype(np.float32)
    rows = [np.array([1, 4, 7, 8, 9, 30]), np.array([], np.int64), np.arange(0, 40, 2)]
    source = Vectors(vectors)
    answers = list(matching.nearest(source, queries, [4, 5, 100], rows))
    for query, count, mine, (similarities, ids, own) in zip(queries, [4, 5, 100], rows, answers, strict=True):
        expected = sorted(mine, key=lambda i, query=query: (-float(vectors[i] @ query), i))[:count]
        assert ids.tolist() == expected
        assert similarities.tolist() == [float(vectors[i] @ query) for i in expected]
        assert np.array_equal(own, vectors[expected])
    assert set(source.read) <= set(np.concatenate(rows))


@pytest.mark.parametrize("kind", ["Flat", "IVF4,Flat", "HNSW8"])
def test_an_index_gives_back_its_vectors(tmp_path, kind):
    import faiss

    vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    built = faiss.index_factory(8, kind, faiss.METRIC_INNER_PRODUCT)
    built.train(vectors)
    built.add(vectors)
    faiss.write_index(built, str(tmp_path / "image.index"))
    index_of(tmp_path, "parquet", ["x"] * 200)
    local = pool_index.LocalIndex(tmp_path, None)
    for ids in (np.array([0, 3, 199]), np.array([], np.int64), np.arange(200)):
        read = np.concatenate([np.zeros((0, 8), np.float32), *local.vectors_of(ids)])
        assert np.array_equal(read, vectors[ids])


# --- the digits world, whose CLIP is hardly trained -----------------------------------------------------


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    embedding.embed([world.shard], f"hf_clip:{world.clip}", folder / "embeddings", batch_size=64, threads=1)
    embedding.build_index([folder / "embeddings"], folder / "index", exact=True, memory="1G", threads=1)
    return folder / "index"


def test_planted_captions_that_clip_misses_are_found(world, folder, tmp_path):
    index = full_text(shutil.copytree(folder, tmp_path / "index"))
    local = pool_index.LocalIndex(folder, clip.Clip(f"hf_clip:{world.clip}"))
    planted = pd.read_parquet(world.planted).set_index("url")["shows"]
    queries, names = ["A photo of three,trey.", "A photo of five,cinque."], [["three", "trey"], ["five", "cinque"]]

    def ask(match):
        searched = search.CachedSearch(
            local, tmp_path / "answers", 1.1, match=MATCHES[match], captions=index if match != "clip" else None
        )
        return [pd.read_parquet(file) for file in searched.neighbours(queries, [12, 7], [], lambda *_: None, names)]

    shares = {}
    for match in MATCHES:
        answers = ask(match)
        assert list(map(len, answers)) == [12, 7]
        shows = pd.concat(planted[table["url"]] == key for table, key in zip(answers, ["three", "five"], strict=True))
        shares[match] = shows.mean()
    assert shares["caption"] == shares["both"] == 1 and shares["clip"] < 0.8
    (every,) = local.neighbours(queries[:1], [10_000], 1.1)
    named = every[[any(says(caption, name) for name in names[0]) for caption in every["caption"]]]
    assert ask("both")[0]["id"].tolist() == named["id"].tolist()[:12]
    assert ask("both")[0]["similarity"].to_numpy() == pytest.approx(named["similarity"].to_numpy()[:12], abs=1e-6)
    assert ask("caption")[0]["id"].tolist() == sorted(named["id"])[:12]
    assert not set(ask("both")[0]["id"]) <= set(every["id"][: 5 * 12])  # of so many neighbours CLIP has not all
