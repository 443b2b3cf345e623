"""Retrieval over real parts (clip-retrieval, img2dataset, HTTP, safety checker), against planted facts."""

import json
import shutil
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest

from augbench import images, neighbours, pool, retrieval, web
from augbench.backbone import SafetyChecker

SETTINGS = {
    "overfetch": 1.4,
    "overfetch_max": 14,
    "min_aesthetic": 5.0,
    "duplicate_threshold": 0.99999,
    "min_image_size": 32,
    "max_image_size": 512,
    "max_pixels": 50_000_000,
}
FETCH = {"timeout": 5, "retries": 0, "max_bytes": 1_000_000, "threads": 4}
PROMPTS = ["A photo of three,trey.", "A photo of five,cinque."]


@pytest.fixture(scope="module")
def folder(world):
    """The pool, embedded and indexed."""
    folder = world.folder / "pool"
    pool.embed([world.shard], f"hf_clip:{world.clip}", folder / "embeddings", batch_size=64, threads=1)
    pool.index([folder / "embeddings"], folder / "index", exact=True, memory="1G", threads=1)
    return folder


@pytest.fixture(scope="module")
def index(world, folder):
    return neighbours.LocalIndex(folder / "index", f"hf_clip:{world.clip}", folder / "work")


@pytest.fixture(scope="module")
def outcome(world, index):
    wanted = pd.DataFrame({"class": ["three", "five"], "prompt": PROMPTS, "count": [12, 1000]})
    folder = world.folder / "retrieval"
    paths = [folder / name for name in ("ledger.parquet", "images.tar", "images.parquet")]
    with web.serve(images.read(world.web)) as proxy:
        retrieval.retrieve(
            wanted,
            index,
            SafetyChecker(world.safety),
            folder / "downloads",
            *paths,
            fetch=FETCH | {"proxy": proxy},
            **SETTINGS,
        )
    return wanted, pd.read_parquet(paths[0]), images.read(paths[2])


def test_neighbours_are_the_most_similar(world, index):
    import numpy as np
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    (found,) = index.neighbours(PROMPTS[:1], [20], 1.0)
    model, tokenizer = CLIPModel.from_pretrained(world.clip).eval(), CLIPTokenizer.from_pretrained(world.clip)
    tokens = tokenizer("A photo of three,trey.", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        query = torch.nn.functional.normalize(model.get_text_features(tokens)).numpy()[0]
    vectors = np.load(world.folder / "pool/embeddings/img_emb/000000.npy").astype(np.float32)
    scores = vectors @ query
    assert found["similarity"].to_numpy() == pytest.approx(np.sort(scores)[::-1][:20], abs=1e-5)
    assert found["similarity"].is_monotonic_decreasing


def test_several_prompts_at_once_are_each_on_its_own(index, monkeypatch):
    together = list(index.neighbours(PROMPTS, [20, 7], 0.99))
    monkeypatch.setattr(neighbours, "CHUNK", 1)
    apart = list(index.neighbours(PROMPTS, [20, 7], 0.99))
    for one, other in zip(together, apart, strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert [len(table) for table in together] == [20, 7]


def test_duplicates_are_those_of_clip_retrieval():
    """Groups of directions; the members after the first are what clip-retrieval would remove."""
    import numpy as np
    from clip_retrieval.clip_back import KnnService

    random = np.random.default_rng(0)
    vectors = np.repeat(random.normal(size=(6, 8)), [3, 1, 2, 1, 4, 1], axis=0)
    vectors = vectors[random.permutation(12)] + random.normal(0, 0.01, (12, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = neighbours.duplicate_of(vectors, 0.94)
    assert {i for i, of in enumerate(found) if of is not None} == set(
        KnnService(clip_resources={}).get_non_uniques(vectors)
    )
    for i, of in enumerate(found):
        assert of is None or (of < i and vectors[i] @ vectors[of] > 0.94 and found[of] is None)


@pytest.mark.parametrize("kind", ["hdf5", "arrow"])
def test_other_metadata_formats_say_the_same(world, folder, index, tmp_path, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from clip_retrieval.clip_back import parquet_to_hdf5

    (tmp_path / "metadata").mkdir()
    shutil.copy(folder / "index" / "image.index", tmp_path)
    if kind == "hdf5":
        parquet_to_hdf5(folder / "index" / "metadata", str(tmp_path / "metadata.hdf5"), ["url", "text", "aesthetic"])
    else:
        table = pq.read_table(folder / "index" / "metadata")
        with pa.ipc.new_file(str(tmp_path / "metadata" / "0.arrow"), table.schema) as writer:
            writer.write_table(table)
    other = neighbours.LocalIndex(tmp_path, f"hf_clip:{world.clip}", tmp_path / "work")
    for one, two in zip(
        index.neighbours(PROMPTS, [30, 30], 0.99), other.neighbours(PROMPTS, [30, 30], 0.99), strict=True
    ):
        pd.testing.assert_frame_equal(one, two)


@pytest.fixture(scope="module")
def service(world, folder):
    """A real ``clip-retrieval back`` on the same index."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = folder / "indices_paths.json"
    paths.write_text(json.dumps({"web": str(folder / "index")}))
    arguments = {
        "indices_paths": str(paths),
        "port": port,
        "clip_model": f"hf_clip:{world.clip}",
        "columns_to_return": ["url", "text", "aesthetic"],
        "enable_mclip_option": False,
        "use_jit": False,
        "provide_aesthetic_embeddings": False,
    }
    command = "import sys, json; from clip_retrieval.clip_back import clip_back; clip_back(**json.loads(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", command, json.dumps(arguments)])
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/knn-service"
    finally:
        process.kill()
        process.wait()


def test_a_service_gives_what_the_index_gives(index, service):
    """Same ids, same order, same metadata; and the same duplicates at the service's fixed threshold."""
    source = neighbours.Service(service, "web")
    for one, two in zip(
        index.neighbours(PROMPTS, [40, 25], 0.94), source.neighbours(PROMPTS, [40, 25], 0.5), strict=True
    ):
        columns = ["id", "url", "caption", "aesthetic"]
        pd.testing.assert_frame_equal(one[columns], two[columns])
        assert one["similarity"].to_numpy() == pytest.approx(two["similarity"].to_numpy(), abs=1e-6)
        assert list(one["duplicate_of"].notna()) == list(two["duplicate_of"].notna())


def test_a_service_that_is_down_is_an_error_that_says_what_to_do():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = neighbours.Service(f"http://127.0.0.1:{port}/knn-service", "web", attempts=3, wait=0.05)
    with pytest.raises(ConnectionError, match=r"failed 3 times.*is `clip-retrieval back` running there"):
        list(source.neighbours(PROMPTS, [3, 3], 0.94))


def test_a_killed_embedding_goes_on_after_its_finished_shards(world, folder, tmp_path, monkeypatch):
    calls, original = [], pool._embed_shard

    def counted(shard, *rest):
        calls.append(shard)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(shard, *rest)

    shards = [tmp_path / name for name in ("a.tar", "b.tar")]
    for shard in shards:
        shutil.copy(world.shard, shard)
    monkeypatch.setattr(pool, "_embed_shard", counted)
    arguments = (shards, f"hf_clip:{world.clip}", tmp_path / "embeddings")
    with pytest.raises(KeyboardInterrupt):
        pool.embed(*arguments, batch_size=64, threads=1)
    assert not (tmp_path / "embeddings").exists()
    pool.embed(*arguments, batch_size=64, threads=1)
    assert calls == [shards[0], shards[1], shards[1]]
    reference = (folder / "embeddings/img_emb/000000.npy").read_bytes()
    for name in ("000000", "000001"):
        assert (tmp_path / f"embeddings/img_emb/{name}.npy").read_bytes() == reference


# --- the ledger, worked by hand -------------------------------------------------------------------------


def rows(*facts):
    """Neighbours from (id, similarity, url) and, where given, fate."""
    table = pd.DataFrame([fact[:3] for fact in facts], columns=["id", "similarity", "url"])
    fates = [fact[3] if len(fact) > 3 else "" for fact in facts]
    return table.assign(caption="", aesthetic=6.0, fate=fates, reason="")


def good(**sha):
    return {url: {"fate": "good", "reason": "", "sha256": value} for url, value in sha.items()}


def settled(found, known, counts):
    ledger = retrieval.settle(found, known, counts)
    return {(row[1], row.id): (row.fate, row.reason) for row in ledger[["class", "id", "fate", "reason"]].itertuples()}


def test_an_image_goes_to_the_class_to_which_it_is_most_similar():
    found = {"a": rows((1, 0.9, "u"), (2, 0.5, "v"), (3, 0.4, "w")), "b": rows((1, 0.95, "u"), (2, 0.3, "v"))}
    known = good(u="x", v="y", w="z")
    assert settled(found, known, {"a": 2, "b": 1}) == {
        ("a", 1): ("other class", "used for b"),
        ("a", 2): ("used", ""),
        ("a", 3): ("used", ""),
        ("b", 1): ("used", ""),
        ("b", 2): ("other class", "used for a"),
    }


def test_ties_go_to_the_earlier_class_and_the_same_bytes_are_one_image():
    found = {"a": rows((1, 0.9, "u"), (2, 0.8, "copy")), "b": rows((1, 0.9, "u"), (3, 0.1, "w"))}
    assert settled(found, good(u="x", copy="x", w="z"), {"a": 2, "b": 1}) == {
        ("a", 1): ("used", ""),
        ("a", 2): ("duplicate", "of 1"),
        ("b", 1): ("other class", "used for a"),
        ("b", 3): ("used", ""),
    }


def test_what_is_not_needed_is_spare_and_what_failed_keeps_its_fate():
    found = {"a": rows((1, 0.9, "u"), (2, 0.8, "v", "unaesthetic"), (3, 0.7, "w"), (4, 0.6, "x"))}
    known = good(u="1", x="2") | {"w": {"fate": "timeout", "reason": "time limit of 2 s", "sha256": None}}
    assert settled(found, known, {"a": 1}) == {
        ("a", 1): ("used", ""),
        ("a", 2): ("unaesthetic", ""),
        ("a", 3): ("timeout", "time limit of 2 s"),
        ("a", 4): ("spare", ""),
    }


# --- planted facts --------------------------------------------------------------------------------------


def test_every_planted_fact_meets_its_fate(world, outcome):
    _, candidates, _ = outcome
    planted = pd.read_parquet(world.planted).set_index("url")
    facts = planted.loc[candidates["url"]].reset_index()
    fate = candidates["fate"].to_numpy()
    assert (fate[facts["aesthetic"] < 5] == "unaesthetic").all()
    tried = ~pd.Series(fate).isin(["unaesthetic", "duplicate"])
    assert (fate[tried & facts["dead"]] == "dead").all()
    assert not candidates.loc[(fate == "used"), "sha256"].duplicated().any()
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


def test_the_images_are_the_bytes_that_the_server_sent(world, outcome):
    import hashlib

    _, _, kept = outcome
    served = {row.url: images.load_bytes(row) for row in images.read(world.web).itertuples()}
    assert len(kept) > 20
    for row in kept.itertuples():
        assert images.load_bytes(row) == served[row.url]
        assert row.sha256 == hashlib.sha256(served[row.url]).hexdigest()


def test_what_not_every_reader_takes_is_encoded_again():
    import io

    from PIL import Image

    def encoded(picture, kind):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        return buffer.getvalue()

    plain = encoded(Image.new("RGB", (60, 40), "red"), "PNG")
    assert retrieval._encoded(plain, 64, 10_000) == ("png", plain)
    for data in (plain, encoded(Image.new("CMYK", (60, 40)), "JPEG"), encoded(Image.new("P", (60, 40)), "GIF")):
        extension, smaller = retrieval._encoded(data, 30, 10_000)
        assert (extension, images.decode(smaller).size) == ("jpg", (30, 20))


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
