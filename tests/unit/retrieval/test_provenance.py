"""Licences, faces and opt-outs: what a pool says of its images is kept, and what may not be used is not."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from retrieving import metadata_of, retrieve_into

from augbench import images
from augbench.core.files import BadInput
from augbench.retrieval import faces, hosts, pools
from augbench.study import config

SIDE = 40
BOX = [0.25, 0.5, 0.5, 0.75]  # pixels 10 to 20 across, 20 to 30 down
SETTINGS = {"overfetch": 1, "overfetch_max": 1, "min_aesthetic": None, "min_image_size": 8}


class Trusting:
    """A safety checker that refuses nothing."""

    def unsafe(self, pictures):
        return [False] * len(pictures)


class Pool:
    """Pictures of noise that lie here, of which ``facts`` are known."""

    def __init__(self, folder, count, **facts):
        self.count, self.facts, self.folder, self.identity = count, facts, folder, [str(folder)]
        folder.mkdir()
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"{number}.png")

    def neighbours(self, queries, counts, threshold, *, diversity=0.0, among=()):
        ids = range(self.count)
        facts = {"url": [f"u{i}" for i in ids], "caption": "", "aesthetic": np.nan, "duplicate_of": None} | self.facts
        table = pd.DataFrame({"id": ids, "similarity": [1 - i / 100 for i in ids], **facts})
        table = table.assign(path=[str(self.folder / f"{i}.png") for i in ids], offset=None, length=None)
        for count in counts:
            kinds = dict.fromkeys(["duplicate_of", "offset", "length"], "Int64")
            yield table.head(count).astype(kinds)


def run(pool, folder, count, licences=None, **settings):
    folder.mkdir()
    wanted = pd.DataFrame({"class": ["a"], "query": ["a"], "count": [count]})
    sections = config.Retrieval(**SETTINGS | settings)
    paths = retrieve_into(folder, wanted, pool, Trusting(), sections, licences=licences)
    return pd.read_parquet(paths.ledger), images.read(paths.images), pd.read_csv(paths.funnel)


LICENCES = ["CC0", "cc-by 4.0", None, "Public Domain", "cc0", "all rights reserved", "", "CC BY 4.0"]


def test_a_licence_filter_lets_nothing_else_through(tmp_path):
    pool = Pool(tmp_path / "pool", 8, licence=LICENCES)
    ledger, table, funnel = run(pool, tmp_path / "some", 8, licences=["cc_0", "CC BY 4.0"])
    assert ledger["licence"].tolist() == LICENCES
    assert ledger["fate"].tolist() == ["used", "used", *["licence"] * 2, "used", *["licence"] * 2, "used"]
    refused = ledger.loc[ledger["fate"] == "licence", "reason"].tolist()
    assert refused == ["not known", "Public Domain", "all rights reserved", "not known"]
    assert table["licence"].tolist() == ["CC0", "cc-by 4.0", "cc0", "CC BY 4.0"]
    assert funnel[["used", "licence"]].values.tolist() == [[4, 4]]
    ledger, table, funnel = run(pool, tmp_path / "all", 8)
    assert (ledger["fate"] == "used").all() and "licence" not in funnel
    assert table["licence"].where(table["licence"].notna(), None).tolist() == LICENCES
    described = [json.loads(sample["json"]) for _, sample in images.read_shard(tmp_path / "all" / "images.tar")]
    assert [facts.get("licence") for facts in described] == LICENCES


def test_a_pool_without_licences_has_no_such_column_and_says_what_to_write(tmp_path):
    pool = Pool(tmp_path / "pool", 2)
    ledger, table, funnel = run(pool, tmp_path / "all", 2)
    assert "licence" not in ledger and "licence" not in funnel and table["licence"].isna().all()
    with pytest.raises(ValueError, match="no image of the pool has a licence by which it could be chosen"):
        run(pool, tmp_path / "some", 2, licences=["CC0"])


def test_faces_are_blurred_where_there_are_boxes_and_nowhere_else(tmp_path):
    boxes = [json.dumps([BOX]), None, "[]", json.dumps([BOX, [0.9, -0.1, 1.1, 0.1]])]
    pool = Pool(tmp_path / "pool", 4, face_bboxes=boxes)
    _, table, _ = run(pool, tmp_path / "blurred", 4, blur_faces=True)
    changed = []
    for number, row in enumerate(table.itertuples()):
        before = np.asarray(Image.open(tmp_path / "pool" / f"{number}.png"), int)
        differs = (np.asarray(images.load(row), int) != before).any(axis=2)
        changed.append({tuple(map(int, place)) for place in np.argwhere(differs)})
        if number == 0:  # nothing of the noise is left
            assert np.asarray(images.load(row))[20:30, 10:20].std() < before[20:30, 10:20].std() / 3
    inside = {(y, x) for y in range(20, 30) for x in range(10, 20)}
    corner = {(y, x) for y in range(4) for x in range(36, 40)}
    assert changed[1] == changed[2] == set()
    assert changed[0] <= inside and len(changed[0]) > 95
    assert changed[3] <= inside | corner and changed[3] & corner
    _, table, _ = run(pool, tmp_path / "plain", 4)
    files = [(tmp_path / "pool" / f"{number}.png").read_bytes() for number in range(4)]
    assert [images.load_bytes(row) for row in table.itertuples()] == files


@pytest.mark.parametrize(
    "text", ["[[1, 2, 3]]", "[[10, 20, 30, 40]]", "{}x", "[[0, 0, NaN, 1]]", '[["a", 0, 1, 1]]', "3"]
)
def test_what_is_no_box_is_one_sentence(text):
    with pytest.raises(BadInput, match=r"face_bboxes of the pool's metadata holds .*, not boxes \[\[left, top"):
        faces.boxes(text)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_licences_and_boxes_come_from_the_metadata_of_an_index(tmp_path, kind):
    """Of two files, of which one has them."""
    (tmp_path / "metadata").mkdir()
    plain = pa.table({"url": ["a", "b"]})
    more = pa.table({"url": ["c", "d"], "license": ["CC0", None], "face_bboxes": [[BOX], []]})
    for number, table in enumerate((plain, more)):
        file = tmp_path / "metadata" / f"{number}.{kind}"
        with (
            pa.ipc.new_file(str(file), table.schema)
            if kind == "arrow"
            else pq.ParquetWriter(file, table.schema) as writer
        ):
            writer.write_table(table)
    rows = metadata_of(tmp_path, [3, 2, 0])
    assert rows["licence"].tolist() == [None, "CC0", None]
    assert [text and faces.boxes(text) for text in rows["face_bboxes"]] == [None, [tuple(BOX)], None]


def test_a_list_of_urls_may_state_licences(tmp_path):
    pd.DataFrame({"url": ["u", "v"], "LICENSE": ["CC0", None]}).to_parquet(tmp_path / "a.parquet")
    assert pools.url_list([tmp_path / "a.parquet"], 0, 9)["licence"].tolist() == ["CC0", None]


def test_each_link_counts_once_for_its_host():
    counted = hosts.Hosts()
    rows = [
        ("http://a.org/1", "used", "0f", 0, 700),
        ("http://a.org:80/2", "dead", None, 1, None),
        ("https://B.org/1", "too large", "0e", 2, 9000),  # in pixels: its bytes came
        ("http://a.org/3", "duplicate", None, -1, None),  # of another image: nobody asked
        ("//a.org/4", "timeout", None, 7, None),
        ("http://a.org/5", "unsafe", "0d", 8, 60),
    ]
    first = pd.DataFrame(rows, columns=["url", "fate", "sha256", "link", "length"]).astype({"length": "Int64"})
    second = first.iloc[[0, 2]].assign(fate="other class")
    counted.add(first)
    counted.add(second)
    counted.add(first[first["link"] < 0])
    table = counted.table()
    assert list(table) == hosts.COLUMNS
    assert table[["host", "asked", "answered", "dead", "timeout", "bytes"]].values.tolist() == [
        ["a.org", 4, 2, 1, 1, 760],
        ["b.org", 1, 1, 0, 0, 9000],
    ]
    assert list(hosts.Hosts().table()) == hosts.COLUMNS
