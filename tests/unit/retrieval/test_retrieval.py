"""Retrieval over real parts (clip-retrieval, img2dataset, HTTP, safety checker), against planted facts."""

import functools
import json
import multiprocessing
import re
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import retrieving
from kills import kill_when, wait_for
from retrieving import retrieve_into

from augbench import images
from augbench.dataset import exclusion
from augbench.digits import server
from augbench.models import aesthetics, clip
from augbench.models.backbones import SafetyChecker
from augbench.retrieval import download, embedding, ledger, pools, scan, search
from augbench.retrieval import index as pool_index
from augbench.retrieval.ledger import FATES
from augbench.retrieval.service import Service
from augbench.study import classes as class_info
from augbench.study.queries import Query
from augbench.study.sections.retrieval import Retrieval
from augbench.study.sources import SOURCES

SETTINGS = Retrieval(duplicate_threshold=0.99999, timeout=5, retries=0, max_bytes=1_000_000, download_threads=4)
PROMPTS = ["A photo of three,trey.", "A photo of five,cinque."]


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    """The pool, embedded and indexed."""
    folder = tmp_path_factory.mktemp("pool")
    embedding.embed([world.shard], f"hf_clip:{world.clip}", folder / "embeddings", batch_size=64, threads=1)
    embedding.build_index([folder / "embeddings"], folder / "index", exact=True, memory="1G", threads=1)
    return folder


@pytest.fixture(scope="module")
def index(world, folder):
    return pool_index.LocalIndex(folder / "index", clip.Clip(f"hf_clip:{world.clip}"))


WANTED = pd.DataFrame({"class": ["three", "five"], "query": PROMPTS, "count": [12, 1000]})


@pytest.fixture(scope="module")
def retrieved(world, index, tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval")
    with server.serve(images.read(world.web)) as proxy:
        return retrieve_into(folder, WANTED, index, SafetyChecker(world.safety), SETTINGS, proxy=proxy)


@pytest.fixture(scope="module")
def outcome(retrieved):
    return WANTED, pd.read_parquet(retrieved.ledger), images.read(retrieved.images)


def test_neighbours_are_the_most_similar(world, folder, index):
    import numpy as np
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    (found,) = index.neighbours(PROMPTS[:1], [20], 1.0)
    model, tokenizer = CLIPModel.from_pretrained(world.clip).eval(), CLIPTokenizer.from_pretrained(world.clip)
    tokens = tokenizer("A photo of three,trey.", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        query = torch.nn.functional.normalize(model.get_text_features(tokens).pooler_output).numpy()[0]
    vectors = np.load(folder / "embeddings/img_emb/000000.npy").astype(np.float32)
    scores = vectors @ query
    assert found["similarity"].to_numpy() == pytest.approx(np.sort(scores)[::-1][:20], abs=1e-5)
    assert found["similarity"].is_monotonic_decreasing


def test_a_scan_of_the_embeddings_finds_what_the_index_finds(world, folder, index):
    pool = folder / "embeddings"
    scanned = scan.Scan(pool, None, clip.Clip(f"hf_clip:{world.clip}"))
    for one, other in zip(
        scanned.neighbours(PROMPTS, [40, 7], 0.99), index.neighbours(PROMPTS, [40, 7], 0.99), strict=True
    ):
        pd.testing.assert_frame_equal(one, other)


def test_several_prompts_at_once_are_each_on_its_own(index, monkeypatch):
    together = list(index.neighbours(PROMPTS, [20, 7], 0.99))
    monkeypatch.setattr(pool_index, "CHUNK", 1)
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
    found = pool_index.duplicate_of(vectors, 0.94)
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
    other = pool_index.LocalIndex(tmp_path, index.clip)
    for one, two in zip(
        index.neighbours(PROMPTS, [30, 30], 0.99), other.neighbours(PROMPTS, [30, 30], 0.99), strict=True
    ):
        pd.testing.assert_frame_equal(one, two)


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
    command = (
        "import sys, json; from clip_retrieval.clip_back import clip_back; from augbench.models import clip; "
        "clip.read_folders(); clip_back(**json.loads(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", command, json.dumps(arguments)])
    try:
        wait_for(lambda: listening(port), process, 600)
        yield f"http://127.0.0.1:{port}/knn-service"
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_service_gives_what_the_index_gives(index, service):
    """Same ids, same order, same metadata; and the same duplicates at the service's fixed threshold."""
    source = Service(service, "web")
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
    source = Service(f"http://127.0.0.1:{port}/knn-service", "web", attempts=3, wait=0.05)
    with pytest.raises(ConnectionError, match=r"failed 3 times.*is `clip-retrieval back` running there"):
        list(source.neighbours(PROMPTS, [3, 3], 0.94))


EMBED = """
import json, sys
from augbench.retrieval import embedding

if __name__ == "__main__":
    shards, model, folder = json.loads(sys.argv[1])
    embedding.embed(shards, model, folder, batch_size=64, threads=1)
"""


@pytest.mark.slow
def test_a_killed_embedding_goes_on_after_its_finished_shards(world, folder, tmp_path, monkeypatch):
    """SIGKILL as soon as the first of two shards is done; it is not embedded again."""
    shards = [tmp_path / f"{name}.tar" for name in "ab"]
    for shard in shards:
        shutil.copy(world.shard, shard)
    (tmp_path / "embed.py").write_text(EMBED)
    given = [[str(shard) for shard in shards], f"hf_clip:{world.clip}", str(tmp_path / "embeddings")]
    kept = tmp_path / ".embeddings.shards"
    kill_when(tmp_path / "embed.py", json.dumps(given), lambda: finished(kept))
    assert len(finished(kept)) == 1 and not (tmp_path / "embeddings").exists()
    calls, original = [], embedding._embed_shard
    monkeypatch.setattr(embedding, "_embed_shard", lambda shard, *rest: calls.append(shard) or original(shard, *rest))
    embedding.embed(*given, batch_size=64, threads=1)
    assert calls == given[0][1:]
    reference = (folder / "embeddings/img_emb/000000.npy").read_bytes()
    for name in ("000000", "000001"):
        assert (tmp_path / f"embeddings/img_emb/{name}.npy").read_bytes() == reference


def finished(folder):
    """What lies there under a name that is not temporary."""
    return [path for path in folder.glob("*") if re.fullmatch("[0-9a-f]{32}(.parquet)?", path.name)]


# --- the ledger, worked by hand -------------------------------------------------------------------------


def rows(*facts):
    """Neighbours from (id, similarity, url) and, where given, fate."""
    table = pd.DataFrame([fact[:3] for fact in facts], columns=["id", "similarity", "address"])
    fates = [fact[3] if len(fact) > 3 else "" for fact in facts]
    return table.assign(url=table["address"], caption="", aesthetic=6.0, fate=fates, reason="")


def good(**sha):
    return {url: {"fate": "good", "reason": "", "sha256": value} for url, value in sha.items()}


def settled(found, known, counts):
    found = {key: table.assign(path=None, offset=None) for key, table in found.items()}
    known = ledger.Known({"address": url, **facts} for url, facts in known.items())
    compact = {key: ledger.Ranked.of(table) for key, table in found.items()}
    outcomes = ledger.assign_images(compact, known, counts)
    tables = [ledger.final_rows(key, found[key], outcomes[key], known, list(found)) for key in found]
    rows = pd.concat(tables)[["class", "id", "fate", "reason"]]
    return {(row[1], row.id): (row.fate, row.reason) for row in rows.itertuples()}


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


def test_hosts_are_told_with_the_links_that_still_answer(world, retrieved, outcome):
    _, candidates, _ = outcome
    links = {
        "answered": set(candidates.loc[candidates["sha256"].notna(), "url"]),
        "dead": set(candidates.loc[candidates["fate"] == "dead", "url"]),
    }
    table = pd.read_csv(retrieved.hosts).set_index("host")
    assert table[["answered", "dead"]].T.to_dict() == {
        host: {name: sum(host in url for url in urls) for name, urls in links.items()}
        for host in ("pictures.example", "blog.example", "shop.example")
    }
    assert (table["answered"] + table["dead"] == table["asked"]).all() and table["dead"].sum() > 0
    sizes = {row.url: len(images.load_bytes(row)) for row in images.read(world.web).itertuples()}
    assert table["bytes"].sum() == sum(sizes[url] for url in links["answered"])


def test_used_are_the_first_good_ones(outcome):
    _, candidates, kept = outcome
    three = candidates[candidates["class"] == "three"].sort_values("rank")
    good = three[three["fate"].isin(["used", "spare"])]
    assert list(good["fate"]) == ["used"] * 12 + ["spare"] * (len(good) - 12)
    mine = kept[kept["class"] == "three"]
    assert list(mine["url"]) == list(good["url"][:12])
    assert all(images.load(row).size == (32, 32) for row in mine.itertuples())


def test_a_class_that_cannot_be_filled_is_told(outcome):
    wanted, candidates, _ = outcome
    counts = dict(zip(wanted["class"], wanted["count"], strict=True))
    short = exclusion.shortfall({"Retrieval": candidates, "Other": candidates}, counts)
    used = int(((candidates["class"] == "five") & (candidates["fate"] == "used")).sum())
    assert short == {"five": f"Retrieval found {used} of 1000 images"}


def test_the_images_are_the_bytes_that_the_server_sent(world, outcome):
    import hashlib

    _, _, kept = outcome
    served = {row.url: images.load_bytes(row) for row in images.read(world.web).itertuples()}
    assert len(kept) > 20
    for row in kept.itertuples():
        assert images.load_bytes(row) == served[row.url]
        assert row.sha256 == hashlib.sha256(served[row.url]).hexdigest()


def test_what_is_wanted():
    table = pd.DataFrame({"class": ["a"] * 5 + ["b"] * 9, "split": (["train"] * 3 + ["test"] * 2) + ["train"] * 9})
    assert class_info.retrieved(table, None, 1.0) == {"a": 3, "b": 9}
    assert class_info.retrieved(table, 5, 1.5) == {"a": 8, "b": 14}  # at least as many as training images
    classes = pd.DataFrame({"class": ["a", "b"], "lemmas": ["desktop computer", "tench, Tinca tinca"]})
    assert search.prompts(classes, "simple_prompt_nows") == [
        ["A photo of desktopcomputer."],
        ["A photo of tench,Tincatinca."],
    ]
    assert [len(texts) for texts in search.prompts(classes, "clip_prompts")] == [80, 80]


def test_prompts_of_each_class_are_its_query(tmp_path):
    """Of a file of prompts a class's own are searched for, by their mean."""
    file = tmp_path / "prompts.json"
    file.write_text('{"Tinca Tinca": ["east", "north"], "a": ["north"]}')
    classes = pd.DataFrame({"class": ["a", "b"], "lemmas": ["desktop computer", "tench, Tinca tinca"]})
    one, two = search.prompts(classes, str(file))
    assert (one, two) == (["north"], ["east", "north"])
    assert search.query(one, None, None, TEXTS) == "north"
    assert search.query(two, None, Compass(), TEXTS) == pytest.approx([0.5**0.5] * 2)


# --- queries beyond the paper's -------------------------------------------------------------------------


TEXTS, BOTH = Query(texts=1), Query(texts=1, images=1)


class Compass:
    """A CLIP of two texts: east and north."""

    def texts(self, texts):
        return np.array([{"east": [1, 0], "north": [0, 1]}[text] for text in texts], dtype=np.float32)


def test_queries_worked_by_hand():
    half = 0.5**0.5
    assert search.query(["east"], None, None, TEXTS) == "east"  # the text itself, which a service embeds
    assert search.query(["east", "north"], None, Compass(), TEXTS) == pytest.approx([half, half])
    pictures = np.array([[1, 0], [0.6, 0.8], [0.6, -0.8]], dtype=np.float32)  # their mean points east
    assert search.query(["north"], pictures, Compass(), BOTH) == pytest.approx([half, half])
    # However many texts and pictures, each kind weighs half.
    assert search.query(["north", "north", "north"], pictures[:1], Compass(), BOTH) == pytest.approx([half, half])


def test_weighted_queries_worked_by_hand():
    """Texts point north and pictures east, in the mean of three; 3 : 4 makes a triangle of sides 3, 4 and 5."""
    pictures = np.array([[1, 0], [0.6, 0.8], [0.6, -0.8]], dtype=np.float32)
    asked = search.query(["north"], pictures, Compass(), Query(texts=3, images=4))
    assert asked == pytest.approx([0.8, 0.6]) and asked.dtype == np.float32
    assert search.query(["north"], pictures, Compass(), Query(images=0.1)) == pytest.approx([1, 0])
    without = Query(**{"texts": 0.75, "not": "east"})  # (-1, 0.75)
    assert search.query(["north"], None, Compass(), without) == pytest.approx([-0.8, 0.6])
    half_without = Query(**{"texts": 1, "images": 1, "not": "east", "not_weight": 0.25})  # (0.75, 1)
    assert search.query(["north"], pictures, Compass(), half_without) == pytest.approx([0.6, 0.8])
    with pytest.raises(ValueError, match="nothing is left of the query for 'east': its parts cancel out"):
        search.query(["east"], None, Compass(), Query(**{"texts": 1, "not": "east"}))


def test_marginal_relevance_worked_by_hand():
    """Two images alike and close to the query, one that is unlike them and further: it comes second, not third."""
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    assert pool_index.by_marginal_relevance([0.9, 0.8, 0.5], vectors, 0.5) == [0, 2, 1]
    assert pool_index.by_marginal_relevance([0.9, 0.8, 0.5], vectors, 0.0) == [0, 1, 2]
    # 0.8 x 0.8 - 0.2 x 1 = 0.44 > 0.8 x 0.5 - 0.2 x 0 = 0.4
    assert pool_index.by_marginal_relevance([0.9, 0.8, 0.5], vectors, 0.2) == [0, 1, 2]


def test_diversified_neighbours_are_the_greedy_choice_among_the_nearest(index, folder):
    """Against the definition, written out as loops over all pairs."""
    (near,) = index.neighbours(PROMPTS[:1], [60], 1.0)
    (found,) = index.neighbours(PROMPTS[:1], [15], 1.0, diversity=0.4, among=[60])
    stored = np.load(folder / "embeddings/img_emb/000000.npy").astype(float)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    left, picked = list(zip(near["id"], near["similarity"], strict=True)), []
    while len(picked) < 15:
        gains = [0.6 * s - 0.4 * max([stored[i] @ stored[j] for j, _ in picked], default=0) for i, s in left]
        picked.append(left.pop(int(np.argmax(gains))))
    assert list(found["id"]) == [i for i, _ in picked]
    assert list(found["id"]) != list(near["id"][:15])
    (first,) = index.neighbours(PROMPTS[:1], [4], 1.0, diversity=0.4, among=[60])
    assert list(first["id"]) == list(found["id"][:4])  # asking for more changes nothing before


@pytest.mark.slow
def test_an_embedding_asks_as_its_text_does(index, service):
    vectors = list(index.clip.texts(PROMPTS))
    for source in (index, Service(service, "web")):
        for one, two in zip(
            source.neighbours(PROMPTS, [20, 9], 0.94), source.neighbours(vectors, [20, 9], 0.94), strict=True
        ):
            assert list(one["id"]) == list(two["id"])
    with pytest.raises(ValueError, match="a service returns no embeddings"):
        next(Service(service, "web").neighbours(PROMPTS, [3, 3], 0.94, diversity=0.3, among=[9, 9]))


# --- aesthetic heads ------------------------------------------------------------------------------------


def heads(folder):
    """Heads as LAION has them, with random weights: file, and the module that computes its scores."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    linear = torch.nn.Linear(6, 1)
    layers = [torch.nn.Linear(6, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 4), torch.nn.Dropout(0.2)]
    several = torch.nn.Sequential(*layers, *(torch.nn.Identity() for _ in range(6)), torch.nn.Linear(4, 1)).eval()
    torch.save(linear.state_dict(), folder / "linear.pth")
    state = {f"layers.{name}": value for name, value in several.state_dict().items()}
    torch.save(state, folder / "several.pth")
    save_file(state, folder / "several.safetensors")
    return {"linear.pth": linear, "several.pth": several, "several.safetensors": several}


def test_scores_are_those_of_the_head(tmp_path):
    import torch

    vectors = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors))
    for name, module in heads(tmp_path).items():
        wanted = module(unit).detach().numpy()[:, 0]
        assert aesthetics.scorer(tmp_path / name)(vectors) == pytest.approx(wanted, abs=1e-6)


class Evil:
    """What a pickle can do when it is read: here, call print."""

    def __reduce__(self):
        return (print, ("pickled code ran",))


def test_what_is_no_head_is_refused(tmp_path, capsys):
    import torch

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        aesthetics.scorer(tmp_path / "evil.pth")
    assert "ran" not in capsys.readouterr().out
    torch.save({"weight": torch.zeros(3, 6), "bias": torch.zeros(3)}, tmp_path / "three.pth")
    with pytest.raises(ValueError, match="not an aesthetic head"):
        aesthetics.scorer(tmp_path / "three.pth")
    heads(tmp_path)
    with pytest.raises(ValueError, match="width 6, those of the study's CLIP have 5: it belongs to another CLIP"):
        aesthetics.scorer(tmp_path / "linear.pth")(np.zeros((1, 5), dtype=np.float32))


# --- pools that are made here ---------------------------------------------------------------------------


def embedded(world, shards, folder):
    """A local index over shards whose images lie on this machine."""
    name = f"hf_clip:{world.clip}"
    embedding.embed(shards, name, folder / "embeddings", batch_size=64, threads=1, places=True)
    embedding.build_index([folder / "embeddings"], folder / "index", exact=True, memory="1G", threads=1)
    return pool_index.LocalIndex(folder / "index", clip.Clip(name), places=True)


@pytest.fixture(scope="module")
def packed(world, tmp_path_factory):
    """The pool as a folder of images with captions beside them, packed into two shards and indexed."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "deep").mkdir()
    for number, (_, sample) in enumerate(images.read_shard(world.shard)):
        place = folder / "deep" if number % 2 else folder
        (place / f"{number:05d}.png").write_bytes(sample["png"])
        (place / f"{number:05d}.txt").write_bytes(sample["txt"])
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.md").write_text("not an image")
    files = SOURCES["folder"].files(folder)
    assert len(files) == number + 2
    shards = [folder / "shards" / f"{part}.tar" for part in range(2)]
    for few, shard in zip((files[:100], files[100:]), shards, strict=True):
        pools.pack(few, shard, max_image_size=512, max_pixels=10**6)
    return embedded(world, shards, folder / "pool")


def test_a_folder_of_images_gives_the_pictures_that_its_shards_give(world, index, packed):
    """The same pictures with other ids: equal similarities, captions and bytes."""
    samples = {(sample["png"], sample["txt"].decode()) for _, sample in images.read_shard(world.shard)}
    assert packed.index.ntotal == index.index.ntotal
    for one, two in zip(
        index.neighbours(PROMPTS, [40, 25], 1.0), packed.neighbours(PROMPTS, [40, 25], 1.0), strict=True
    ):
        assert one["similarity"].to_numpy() == pytest.approx(two["similarity"].to_numpy(), abs=1e-4)
        wrong = [row for row in two.itertuples() if (images.load_bytes(row), row.caption) not in samples]
        assert not wrong
        assert len(set(one["caption"]) & set(two["caption"])) > 5


def test_images_that_lie_here_are_not_downloaded(world, packed, tmp_path):
    wanted = pd.DataFrame({"class": ["three", "five"], "query": PROMPTS, "count": [5, 5]})
    settings = SETTINGS.model_copy(update={"min_aesthetic": None})
    paths = retrieve_into(tmp_path, wanted, packed, SafetyChecker(world.safety), settings)
    ledger, funnel = pd.read_parquet(paths.ledger), pd.read_csv(paths.funnel)
    assert not ledger["fate"].isin(["dead", "timeout", "refused"]).any() and pd.read_csv(paths.hosts).empty
    assert list(funnel["used"]) == [5, 5] == list(ledger[ledger["fate"] == "used"].groupby("class").size())
    assert (funnel["considered"] == funnel[[name for name in FATES if name in funnel]].sum(axis=1)).all()
    assert not (tmp_path / "downloads").exists()


def test_a_data_set_of_parquet_gives_what_the_index_gives(world, index, tmp_path):
    """The same pictures in Parquet: ids, order, similarities, captions and duplicates; and the bytes in their rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored = [sample for _, sample in images.read_shard(world.shard)]
    table = pa.table(
        {
            "image": [{"bytes": sample["png"], "path": "a.png"} for sample in stored],
            "text": [sample["txt"].decode() for sample in stored],
            **{name: [json.loads(sample["json"]).get(name) for sample in stored] for name in ("url", "aesthetic")},
        }
    )
    half = len(stored) // 2
    for name, part in (("a", table[:half]), ("b", table[half:])):
        pq.write_table(part, tmp_path / f"{name}.parquet", row_group_size=50)
    source = embedded(world, SOURCES["huggingface"].files(tmp_path), tmp_path / "pool")
    for one, two in zip(
        index.neighbours(PROMPTS, [40, 25], 0.99), source.neighbours(PROMPTS, [40, 25], 0.99), strict=True
    ):
        place = ["path", "offset", "length"]
        pd.testing.assert_frame_equal(one.drop(columns=place), two.drop(columns=place))
        assert [images.load_bytes(row) for row in two.itertuples()] == [stored[i]["png"] for i in two["id"]]


@pytest.mark.parametrize("kind", ["index", "embeddings"])
def test_nothing_but_neighbours_is_asked_for(kind, world, folder, index, tmp_path, monkeypatch):
    requests, parse = [], server.BaseHTTPRequestHandler.parse_request

    def recorded(handler):
        is_right = parse(handler)
        requests.append(handler.path)
        return is_right

    monkeypatch.setattr(server.BaseHTTPRequestHandler, "parse_request", recorded)
    source = index if kind == "index" else scan.Scan(folder / "embeddings", None, index.clip)
    wanted = pd.DataFrame({"class": ["three", "five"], "query": PROMPTS, "count": [6, 9]})
    with server.serve(images.read(world.web)) as proxy:
        paths = retrieve_into(tmp_path, wanted, source, SafetyChecker(world.safety), SETTINGS, proxy=proxy)
    rows = pd.read_parquet(paths.ledger)
    near = rows[~rows["fate"].isin(["unaesthetic", "unscored"])]
    assert len(requests) == len(set(requests)) and set(requests) <= set(near["url"])
    assert set(rows.loc[rows["fate"] == "used", "url"]) <= set(requests)


def test_places_in_a_strangers_metadata_are_not_believed(folder, index, tmp_path):
    """An index from elsewhere could name any file of this machine."""
    shutil.copytree(folder / "index", tmp_path / "index")
    (file,) = (tmp_path / "index" / "metadata").iterdir()
    pd.read_parquet(file).assign(path="/etc/passwd", offset=0, length=100).to_parquet(file)
    (found,) = pool_index.LocalIndex(tmp_path / "index", index.clip).neighbours(PROMPTS[:1], [5], 1)
    assert found["path"].isna().all()


def test_a_list_of_urls_becomes_a_shard(world, tmp_path, monkeypatch):
    """The same web, given by its URLs alone: dead links are told, the others' bytes are those that were served."""
    served, planted = images.read(world.web), pd.read_parquet(world.planted)
    listed = planted[["url"]].assign(TEXT="a caption", AESTHETIC_SCORE=6.5)
    listed.iloc[:150].to_parquet(tmp_path / "a.parquet")
    listed.iloc[150:].to_parquet(tmp_path / "b.parquet")
    rows = pools.url_list([tmp_path / "a.parquet", tmp_path / "b.parquet"], 100, 200)
    assert list(rows["url"]) == list(planted["url"][100:200])
    assert (rows["caption"] == "a caption").all() and (rows["aesthetic"] == 6.5).all()
    with server.serve(served) as proxy:
        fetch = functools.partial(download.fetch, proxy=proxy)
        monkeypatch.setattr(pools.download, "fetch", fetch)
        pools.download_shard(rows, tmp_path / "0.tar", tmp_path / "0.parquet", tmp_path / "downloads", SETTINGS)
    ledger = pd.read_parquet(tmp_path / "0.parquet").set_index("url")
    fates = ledger["fate"]
    dead = planted.set_index("url").loc[rows["url"], "dead"].to_numpy()
    assert dead.any()
    assert (fates == np.where(dead, "dead", "fetched")).all()
    bytes_of = {row.url: images.load_bytes(row) for row in served.itertuples()}
    sizes = [len(bytes_of[url]) for url in rows["url"][~dead]]
    assert (
        list(ledger.loc[rows["url"][~dead], "bytes"]) == sizes and (ledger.loc[rows["url"][dead], "bytes"] == 0).all()
    )
    samples = [sample for _, sample in images.read_shard(tmp_path / "0.tar")]
    assert [sample["jpg"] for sample in samples] == [bytes_of[url] for url in rows["url"][~dead]]
    assert json.loads(samples[0]["json"])["aesthetic"] == 6.5
    listed[["TEXT"]].to_parquet(tmp_path / "c.parquet")
    with pytest.raises(ValueError, match=r"has no column url or URL or .* \(it has TEXT\)"):
        pools.url_list([tmp_path / "c.parquet"], 0, 1)


@pytest.mark.slow
def test_embedding_does_not_need_python_to_fork_by_default(world, tmp_path):
    usual = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)  # the default since Python 3.14
    try:
        pool = embedded(world, [world.shard], tmp_path)
        assert multiprocessing.get_start_method() == "forkserver"
    finally:
        multiprocessing.set_start_method(usual, force=True)
    assert pool.index.ntotal > 100


@pytest.mark.middle
def test_autofaiss_chooses_an_index_for_large_pools(tmp_path):
    """Approximate and tuned: almost every vector is its own nearest neighbour."""
    import faiss

    vectors = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for name in ("img_emb", "metadata"):
        (tmp_path / "part" / name).mkdir(parents=True)
    np.save(tmp_path / "part/img_emb/000000.npy", vectors)
    pd.DataFrame({"url": [f"http://h/{i}" for i in range(3000)]}).to_parquet(tmp_path / "part/metadata/000000.parquet")
    embedding.build_index([tmp_path / "part"], tmp_path / "index", exact=False, memory="1G", threads=1)
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == ["image.index", "metadata"]
    index = faiss.read_index(str(tmp_path / "index/image.index"))
    assert index.ntotal == 3000
    assert (index.search(vectors, 1)[1][:, 0] == np.arange(3000)).mean() > 0.9


@pytest.mark.slow
def test_what_cannot_be_embedded_is_told(world, tmp_path, capfd):
    with images.ShardWriter(tmp_path / "0.tar") as writer:
        for number, (_, sample) in enumerate(images.read_shard(world.shard)):
            if number == 12:
                break
            data = b"no image" if number == 3 else sample["png"]
            kind = "jpg" if number == 5 else "png"  # formats may be mixed
            writer.add(f"{number:03d}", {kind: data, "txt": "x"}, image=kind)
    found = embedded(world, [tmp_path / "0.tar"], tmp_path)
    assert found.index.ntotal == 11
    assert "1 of 12 samples are left out: 1 images cannot be read, 0 have no image" in capfd.readouterr().out


# --- kills ----------------------------------------------------------------------------------------------

STAGE = (
    f"import sys; sys.path.append({str(Path(retrieving.__file__).parent)!r})"
    + """
import json, time
import pandas as pd
from augbench.models import clip
from augbench.models.backbones import SafetyChecker
from augbench.retrieval import index as pool_index
from augbench.study.sections.retrieval import Retrieval
from retrieving import retrieve_into


class Slow(pool_index.LocalIndex):
    def neighbours(self, *arguments, **keywords):
        for table in super().neighbours(*arguments, **keywords):
            yield table
            time.sleep(slow)


if __name__ == "__main__":
    index, model, safety, work, queries, proxy, settings, slow = json.loads(sys.argv[1])
    wanted = pd.DataFrame({"class": list("abcdef"), "query": queries, "count": 12})
    source = Slow(index, clip.Clip(model))
    retrieve_into(work, wanted, source, SafetyChecker(safety), Retrieval(**settings), proxy=proxy)
"""
)
WORDS = ("one", "two", "three", "four", "five", "six")


@pytest.mark.slow
def test_a_stage_killed_in_search_and_in_download_ends_with_the_same_ledger(world, folder, tmp_path, monkeypatch):
    """SIGKILL after two of six queries, and again when img2dataset has begun; no query is asked twice."""
    script = tmp_path / "stage.py"
    script.write_text(STAGE)

    def given(name, proxy, slow):
        queries = [f"A photo of {word}." for word in WORDS]
        model, work = f"hf_clip:{world.clip}", str(tmp_path / name)
        settings = SETTINGS.model_dump()
        return json.dumps([str(folder / "index"), model, str(world.safety), work, queries, proxy, settings, slow])

    answers, downloads = tmp_path / "killed/neighbours", tmp_path / "killed/downloads"
    with server.serve(images.read(world.web)) as proxy:
        kill_when(script, given("killed", proxy, 0.5), lambda: len(finished(answers)) >= 2)
        first = {path: path.stat().st_mtime_ns for path in finished(answers)}
        assert 2 <= len(first) < 6 and not downloads.exists()
        kill_when(script, given("killed", proxy, 0), lambda: list(downloads.glob("*/*/urls.parquet")))
        assert not list(downloads.glob("*/*/fetched.parquet"))
        for name in ("killed", "clean"):
            monkeypatch.setattr(sys, "argv", [str(script), given(name, proxy, 0)])
            runpy.run_path(str(script), run_name="__main__")  # in this process, which has imported everything
    assert {path: path.stat().st_mtime_ns for path in first} == first
    for name in ("ledger.parquet", "images.tar", "funnel.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()
    assert (pd.read_parquet(tmp_path / "clean/ledger.parquet")["fate"] == "used").sum() > 20


def test_more_neighbours_are_another_question(index, tmp_path):
    """Answers are kept by what was asked: the same call asks nothing, another count asks again."""
    asked = []

    class Counting:
        identity = index.identity

        def neighbours(self, queries, *rest, **settings):
            asked.extend(queries)
            return index.neighbours(queries, *rest, **settings)

    queries = [f"A photo of {word}." for word in WORDS]
    searched = search.CachedSearch(Counting(), tmp_path, 0.99)
    found = searched.neighbours(queries, [20] * 6, [], lambda *_: None)
    searched.neighbours(queries, [20] * 6, [], lambda *_: None)
    assert asked == queries
    for one, two in zip(found, index.neighbours(queries, [20] * 6, 0.99), strict=True):
        pd.testing.assert_frame_equal(pd.read_parquet(one), two)
    searched.neighbours(queries, [21] * 6, [], lambda *_: None)
    assert len(asked) == 12
