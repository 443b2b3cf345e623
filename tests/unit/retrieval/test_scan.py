"""Published embeddings, searched where they lie: planted neighbours in each layout, and what is refused."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest

from augbench.core.files import BadInput
from augbench.retrieval import scan, search
from augbench.study import embedding_pairs

WIDTH = 16
WORDS = [f"thing {number}" for number in range(60)]


class Clip:
    """Texts of unit length by a table of directions; what it does not know is somewhere else."""

    identity = "planted"

    def __init__(self, seed=0):
        random = np.random.default_rng(seed)
        directions = random.normal(size=(len(WORDS), WIDTH)).astype(np.float32)
        self.directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)

    def texts(self, texts):
        return np.stack([self.directions[WORDS.index(text)] for text in texts])


def rows(count=600, seed=1):
    """Vectors near their captions' directions, of any length, and their metadata."""
    random = np.random.default_rng(seed)
    number = random.permutation(np.arange(count) % len(WORDS))
    vectors = Clip().directions[number] + random.normal(0, 0.05, (count, WIDTH))
    vectors = (vectors * random.uniform(0.5, 9, (count, 1))).astype(np.float32)
    table = pd.DataFrame({"url": [f"http://x/{i}.jpg" for i in range(count)], "text": [WORDS[i] for i in number]})
    return vectors, table


def datacomp(folder, vectors, table):
    """Pairs in one folder, each archive with arrays of two CLIPs."""
    for part, (some, mine) in enumerate(_cut(vectors, table)):
        np.savez(folder / f"{part:08x}.npz", b32_img=some[:, :4], l14_img=some.astype(np.float16))
        mine.to_parquet(folder / f"{part:08x}.parquet", index=False)
    return "l14_img"


def plain(folder, vectors, table):
    for part, (some, mine) in enumerate(_cut(vectors, table)):
        np.save(folder / f"part-{part}.npy", some)
        mine.to_parquet(folder / f"part-{part}.parquet", index=False)


def clip_retrieval(folder, vectors, table):
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir()
    for part, (some, mine) in enumerate(_cut(vectors, table)):
        np.save(folder / "img_emb" / f"img_emb_{part}.npy", some)
        mine.to_parquet(folder / "metadata" / f"metadata_{part}.parquet", index=False)


def _cut(vectors, table):
    limits = [0, 250, 251, len(table)]
    return [(vectors[a:b], table[a:b].reset_index(drop=True)) for a, b in itertools.pairwise(limits)]


@pytest.mark.parametrize("layout", [datacomp, plain, clip_retrieval])
def test_neighbours_are_those_of_a_plain_product_in_each_layout(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "BLOCK", 4 * WIDTH * 7)  # several blocks to a file
    vectors, table = rows()
    array = layout(tmp_path, vectors, table)
    assert embedding_pairs.check(tmp_path, array, "a CLIP", WIDTH) == len(table)
    found = list(scan.Scan(tmp_path, array, Clip()).neighbours(["thing 3", "thing 8"], [12, 3], 1.1))
    stored = np.float32(vectors.astype(np.float16)) if array else vectors
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    for word, count, mine in zip((3, 8), (12, 3), found, strict=True):
        expected = stored @ Clip().directions[word]
        best = np.argsort(-expected)[:count]
        assert mine["id"].tolist() == best.tolist()
        assert mine["similarity"].to_numpy() == pytest.approx(expected[best], abs=1e-6)
        assert mine["url"].tolist() == table["url"][best].tolist()
        assert mine["caption"].tolist() == table["text"][best].tolist()


@pytest.mark.parametrize("counts", [[5, 40], [600, 9]])
def test_of_equally_near_images_the_first_are_taken(counts, tmp_path, monkeypatch):
    """Of corners of a cube all sums are exact, so many similarities are the same."""
    monkeypatch.setattr(scan, "BLOCK", 4 * WIDTH * 7)
    monkeypatch.setattr(scan, "TILE", 1)
    corners = np.random.default_rng(2).choice([-0.25, 0.25], (600, WIDTH)).astype(np.float32)
    plain(tmp_path, corners, rows()[1].drop(columns="text"))
    queries = corners[[3, 80]]
    answers = scan.Scan(tmp_path, None, Clip()).nearest(queries, counts, counts)
    for query, count, (similarities, ids, own) in zip(queries, counts, answers, strict=True):
        best = np.argsort(-(corners @ query), kind="stable")[:count]
        assert ids.tolist() == best.tolist()
        assert np.array_equal(similarities, (corners @ query)[best]) and np.array_equal(own, corners[best])


@pytest.mark.parametrize("layout", [datacomp, plain])
def test_a_search_that_grows_reads_the_embeddings_once(layout, tmp_path, monkeypatch):
    vectors, table = rows()
    source = scan.Scan(tmp_path, layout(tmp_path, vectors, table), Clip())
    compared, add = [], scan.Nearest.add
    monkeypatch.setattr(scan.Nearest, "add", lambda self, block: compared.append(len(block)) or add(self, block))
    searched = search.CachedSearch(source, tmp_path / "answers", 1.1)
    for counts in ([4, 6], [8, 12], [40, 60]):
        answers = searched.neighbours(["thing 3", "thing 8"], counts, [40, 60], lambda *_: None)
        assert [len(pd.read_parquet(answer)) for answer in answers] == counts
    assert sum(compared) == len(table)
    # What nobody knew of is searched; and all answers are those of a search that did not grow.
    grown = [pd.read_parquet(answer) for answer in answers]
    (more,) = source.neighbours(["thing 3"], [50], 1.1)
    assert sum(compared) == 2 * len(table)
    pd.testing.assert_frame_equal(more[:40], grown[0].astype(more.dtypes))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_mapped_where_it_can_be(save, tmp_path):
    vectors, table = rows()
    save(tmp_path / "a.npz", other=vectors[:, :3], l14_img=vectors, turned=np.asfortranarray(vectors))
    table.to_parquet(tmp_path / "a.parquet")
    for name in ("l14_img", "turned"):
        (pair,) = embedding_pairs.pairs(tmp_path, name)
        read = embedding_pairs.vectors(pair)
        assert isinstance(read, np.memmap) == (save is np.savez)
        assert np.array_equal(read, vectors)


def test_duplicates_and_numbers_that_are_none(tmp_path):
    vectors, table = rows()
    vectors[5], vectors[6], vectors[7] = 3 * Clip().directions[3], Clip().directions[3], np.nan
    plain(tmp_path, vectors, table)
    (found,) = scan.Scan(tmp_path, None, Clip()).neighbours(["thing 3"], [len(table)], 0.9999999)
    assert set(found["id"][:2]) == {5, 6} and found["duplicate_of"][1] == found["id"][0]
    assert found.set_index("id")["similarity"][7] == 0


def test_a_clip_that_made_other_embeddings_is_refused(tmp_path):
    vectors, table = rows()
    plain(tmp_path, vectors, table)
    with pytest.raises(BadInput, match=r"its embeddings are not this CLIP's: only [0-9]+% of the images are nearer"):
        scan.Scan(tmp_path, None, Clip(seed=5))


def test_agreement_worked_by_hand():
    texts, images = np.eye(3, dtype=np.float32), np.float32([[1, 0, 0], [0, 1, 0], [0, 1, 0.5]])
    # Image 2 is nearer to text 1 than to its own: one of six comparisons.
    assert scan.agreement(texts, images, ["a", "b", "c"]) == pytest.approx(5 / 6)
    assert scan.agreement(texts, images, ["a", "b", "b"]) == 1.0  # the same caption twice is not compared


def _without(name):
    return lambda folder: (folder / name).unlink()


DAMAGE = {
    "no metadata": (_without("part-1.parquet"), "part-1.npy has no part-1.parquet"),
    "no vectors": (_without("part-2.npy"), "part-2.parquet has no .npy or .npz"),
    "other rows": (
        lambda folder: np.save(folder / "part-0.npy", np.zeros((3, WIDTH), np.float32)),
        "part-0.npy has 3 rows and ",
    ),
    "other width": (
        lambda folder: np.save(folder / "part-0.npy", np.zeros((250, 4), np.float32)),
        "part-0.npy has vectors of width 4, but the CLIP a CLIP has width 16",
    ),
    "whole numbers": (
        lambda folder: np.save(folder / "part-0.npy", np.zeros((250, WIDTH), int)),
        "part-0.npy holds int64 (250, 16), not embeddings",
    ),
    "damaged": (lambda folder: (folder / "part-0.npy").write_bytes(b"x"), "part-0.npy or its .parquet cannot be read"),
    "no addresses": (
        lambda folder: pd.DataFrame({"text": ["a"] * 250}).to_parquet(folder / "part-0.parquet"),
        "part-0.parquet has no column url (it has text)",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_does_not_fit_together_is_one_sentence(kind, tmp_path):
    plain(tmp_path, *rows())
    damage, sentence = DAMAGE[kind]
    damage(tmp_path)
    with pytest.raises(BadInput, match=re.escape(sentence)):
        embedding_pairs.check(tmp_path, None, "a CLIP", WIDTH)


def test_an_archive_of_several_arrays_wants_a_name(tmp_path):
    datacomp(tmp_path, *rows())
    with pytest.raises(BadInput, match=r"holds b32_img, l14_img; name its embeddings, e.g. `pool: \{array: l14_img\}`"):
        embedding_pairs.pairs(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="there is no "):
        embedding_pairs.pairs(tmp_path / "empty")
