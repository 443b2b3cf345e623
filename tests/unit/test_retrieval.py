"""Retrieval over real parts (clip-retrieval, img2dataset, HTTP, safety checker), against planted facts."""

import pandas as pd
import pytest

from augbench import images, pool, retrieval, web
from augbench.backbone import SafetyChecker

SETTINGS = {
    "overfetch": 1.4,
    "overfetch_max": 14,
    "min_aesthetic": 5.0,
    "duplicate_threshold": 0.99999,
    "max_image_size": 512,
    "timeout": 5,
    "retries": 0,
    "download_threads": 4,
}


@pytest.fixture(scope="module")
def index(world):
    folder = world.folder / "pool"
    pool.embed(
        [world.shard],
        f"hf_clip:{world.clip}",
        folder / "embeddings",
        image_key="png",
        batch_size=64,
        threads=1,
    )
    pool.index(folder / "embeddings", folder / "index", exact=True, threads=1)
    return retrieval.LocalIndex(folder / "index", f"hf_clip:{world.clip}")


@pytest.fixture(scope="module")
def outcome(world, index):
    wanted = pd.DataFrame(
        {
            "class": ["three", "five"],
            "prompt": ["A photo of three,trey.", "A photo of five,cinque."],
            "count": [12, 1000],
        }
    )
    folder = world.folder / "retrieval"
    paths = [folder / name for name in ("candidates.parquet", "images.tar", "images.parquet")]
    with web.serve(images.read(world.web)) as proxy:
        retrieval.retrieve(
            wanted, index, SafetyChecker(world.safety), folder / "downloads", *paths, proxy=proxy, **SETTINGS
        )
    return wanted, pd.read_parquet(paths[0]), images.read(paths[2])


def test_neighbours_are_the_most_similar(world, index):
    import numpy as np
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    found = index.neighbours("A photo of three,trey.", 20, 1.0)
    model, tokenizer = CLIPModel.from_pretrained(world.clip).eval(), CLIPTokenizer.from_pretrained(world.clip)
    tokens = tokenizer("A photo of three,trey.", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        query = torch.nn.functional.normalize(model.get_text_features(tokens)).numpy()[0]
    vectors = np.load(next((world.folder / "pool/embeddings/img_emb").glob("*.npy"))).astype(np.float32)
    scores = vectors @ query
    assert found["similarity"].to_numpy() == pytest.approx(np.sort(scores)[::-1][:20], abs=1e-5)
    assert found["similarity"].is_monotonic_decreasing


def test_every_planted_fact_meets_its_fate(world, outcome):
    _, candidates, _ = outcome
    planted = pd.read_parquet(world.planted).set_index("url")
    facts = planted.loc[candidates["url"]].reset_index()
    fate = candidates["fate"].to_numpy()
    assert (fate[facts["aesthetic"] < 5] == "unaesthetic").all()
    tried = ~pd.Series(fate).isin(["unaesthetic", "duplicate"])
    assert (fate[tried & facts["dead"]] == "dead").all()
    assert not (fate[~facts["dead"]] == "dead").any()
    # Planted copies have the embedding of their original: only the more similar (first) one stays.
    five = facts[(candidates["class"] == "five").to_numpy()]
    for row in five[five["copy_of"].notna()].itertuples():
        pair = five["key"].isin([row.key, row.copy_of])
        stays = candidates[(candidates["class"] == "five")].reset_index(drop=True)["fate"]
        assert (stays[pair.to_numpy()].isin(["used", "spare"])).sum() <= 1


def test_used_are_the_first_good_ones(outcome):
    _, candidates, kept = outcome
    three = candidates[candidates["class"] == "three"].sort_values("rank")
    good = three[three["fate"].isin(["used", "spare"])]
    assert list(good["fate"]) == ["used"] * 12 + ["spare"] * (len(good) - 12)
    mine = kept[kept["class"] == "three"]
    assert list(mine["url"]) == list(good["url"])
    assert all(images.load(row).size == (32, 32) for row in mine.itertuples())


def test_a_class_that_cannot_be_filled_is_told(outcome):
    wanted, candidates, _ = outcome
    short = retrieval.shortfall(candidates, dict(zip(wanted["class"], wanted["count"], strict=True)))
    used = int(((candidates["class"] == "five") & (candidates["fate"] == "used")).sum())
    assert short == {"five": f"retrieval found {used} of 1000 images"}


def test_the_downloads_are_what_the_server_sent(world, outcome):
    import hashlib

    import numpy as np

    _, _, kept = outcome
    served = {row.url: images.load_bytes(row) for row in images.read(world.web).itertuples()}
    assert len(kept) > 20
    for row in kept.itertuples():
        assert row.sha256 == hashlib.sha256(served[row.url]).hexdigest()
        pictures = images.decode(served[row.url]), images.load(row)
        sent, stored = (np.asarray(picture.convert("L"), float).ravel() for picture in pictures)
        assert np.corrcoef(sent, stored)[0, 1] > 0.95  # the same picture, though PNG became JPEG


def test_what_is_wanted():
    table = pd.DataFrame({"class": ["a"] * 5 + ["b"] * 9, "split": (["train"] * 3 + ["test"] * 2) + ["train"] * 9})
    assert retrieval.counts(table, None, 1.0) == {"a": 3, "b": 9}
    assert retrieval.counts(table, 5, 1.5) == {"a": 8, "b": 14}  # at least as many as training images
    classes = pd.DataFrame({"class": ["a", "b"], "lemmas": ["desktop computer", "tench, Tinca tinca"]})
    rows = retrieval.wanted(classes, {"a": 3, "b": 9}, "simple_prompt_nows")
    assert rows.to_dict("list") == {
        "class": ["a", "b"],
        "prompt": ["A photo of desktopcomputer.", "A photo of tench,Tincatinca."],
        "count": [3, 9],
    }


def test_other_schemes_are_never_followed():
    rows = pd.DataFrame({"url": ["file:///etc/passwd", "ftp://x/y", "http://a/b"], "duplicate": False})
    rows["aesthetic"] = float("nan")
    assert list(retrieval._eligible(rows, 5.0)) == [False, False, True]
