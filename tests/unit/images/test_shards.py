"""Shards and metadata: members as webdataset reads them, JSON of any shape, damage named, nothing counts as nothing."""

import io
import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hostile import tar
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from retrieving import metadata_of

from augbench import images
from augbench.core import files
from augbench.images import folders
from augbench.jobs import checks
from augbench.models import captioned_pool
from augbench.retrieval import embedding, metadata, pools
from augbench.study.config import Pool, Retrieval
from augbench.study.sources import SOURCES

FAMILY = settings(derandomize=True, max_examples=60, deadline=None)


def picture(shade=0, kind="PNG", mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (4, 4), shade if mode == "L" else (shade, 0, 0) + (128,) * (mode == "RGBA")).save(buffer, kind)
    return buffer.getvalue()


# --- members --------------------------------------------------------------------------------------------

PLACES = st.sampled_from(["", "./", "train.v2/", "a/b.c/", "__MACOSX/", "/abs/"])
KEYS = st.sampled_from(["000", "001", "._000", ".hidden", "__meta__", "x y", "é", "no"])
EXTENSIONS = st.sampled_from(["jpg", "JPG", "jpeg", "Png", "txt", "json", "seg.png", "v2.jpg", "", "cls"])
MEMBERS = st.lists(
    st.tuples(PLACES, KEYS, EXTENSIONS).map(lambda parts: f"{parts[0]}{parts[1]}.{parts[2]}"), max_size=8
)


@FAMILY
@given(MEMBERS)
def test_members_are_grouped_as_webdataset_groups_them(tmp_path_factory, names):
    from webdataset import handlers, tariterators

    path = tar(tmp_path_factory.mktemp("names") / "0.tar", [(name, name.encode()) for name in names])
    with open(path, "rb") as file:
        members = [
            member | {"__url__": "", "stream": None, "url": ""} for member in tariterators.tar_file_iterator(file)
        ]
    expected = [
        (sample.pop("__key__"), {name: data for name, data in sample.items() if name != "__url__"})
        for sample in tariterators.group_by_keys(members, handler=handlers.ignore_and_continue)
    ]
    assert list(images.read_shard(path)) == [(key, sample) for key, sample in expected if sample]


@pytest.mark.parametrize("name", ["./000.jpg", "train.v2/000.jpg", "000.JPG", "a.b/000.Jpeg", "000.avif", "000.TIFF"])
def test_images_are_known_in_any_folder_case_and_format(tmp_path, name):
    path = tar(tmp_path / "0.tar", [("._000.jpg", b"mac"), (name, picture()), ("README.md", b"")])
    kinds = [images.picture_in(sample) for _, sample in images.read_shard(path)]
    assert kinds == [name.rpartition(".")[2].lower(), None]


# --- damage ---------------------------------------------------------------------------------------------


def test_a_shard_that_is_cut_off_anywhere_is_named(tmp_path):
    whole = tar(tmp_path / "0.tar", [(f"{i:03d}.{kind}", bytes(700)) for i in range(3) for kind in ("jpg", "txt")])
    data, cut = whole.read_bytes(), tmp_path / "cut.tar"
    end = data.rindex(b"002.txt") + 512 + 1024  # of the last member
    for length in [*range(0, end, 256), end - 1, end, end + 100]:
        cut.write_bytes(data[:length])
        for read in (images.read_shard, images.member_places):
            with pytest.raises(files.BadInput, match=f"the shard {cut} cannot be read: it is") as error:
                list(read(cut))
            assert "\n" not in str(error.value)
    cut.write_bytes(data[: end + 512])  # the mark of the end is there
    assert len(list(images.read_shard(cut))) == 3


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid 1\n", "it is a Git LFS pointer; fetch the file itself"),
        (b"\x1f\x8b" + bytes(510), "it is compressed; unpack it"),
        (b"<html>" + bytes(506), "it is damaged, cut off or no tar"),
    ],
)
def test_what_is_no_shard_is_named_with_the_reason(tmp_path, data, sentence):
    (tmp_path / "0.tar").write_bytes(data)
    with pytest.raises(files.BadInput, match=sentence):
        list(images.read_shard(tmp_path / "0.tar"))
    if len(data) % 512 or not data:  # as a plan knows from the size alone
        with pytest.raises(files.BadInput, match=sentence):
            SOURCES["shards"].check(tmp_path)


@FAMILY
@given(st.binary(max_size=2000))
def test_any_bytes_are_a_shard_or_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "0.tar"
    path.write_bytes(data)
    try:
        list(images.read_shard(path))
    except files.BadInput as error:
        assert str(path) in str(error) and "\n" not in str(error)


# --- what clip-retrieval embeds -------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
RAW = st.sampled_from(
    [b"", b"{", b"[" * 5000, b'"\\ud800"', b'{"\\udfff": "\\ud800"}', b'{"a": 1e999}', b"\xff\xfe{\0}\0"]
)


def cut_picture():
    """A JPEG whose head is whole and whose pixels are not."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "JPEG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


CUT = cut_picture()


def decodes(data):
    try:
        images.decode(data)
    except files.BadInput:
        return False
    return True


@pytest.fixture
def without_clip(monkeypatch):
    """Embeds each image as its number of bytes, as clip-retrieval would write it."""

    def infer(shard, clip_model, folder, batch_size):
        samples = [(key, sample["jpg"]) for key, sample in images.read_shard(shard)]
        readable = [(key, data) for key, data in samples if decodes(data)]
        if not readable:
            return
        np.save(folder / "img_emb" / "img_emb_0.npy", np.array([[len(data)] for _, data in readable]))
        table = pd.DataFrame({"image_path": [key for key, _ in readable]})
        table.to_parquet(folder / "metadata" / "metadata_0.parquet")

    monkeypatch.setattr(embedding, "_infer", infer)
    monkeypatch.setattr(embedding.resume, "identity", lambda module, settings_, paths: f"{paths[0].name:0>32}")


@FAMILY
@given(st.lists(JSON.map(json.dumps).map(str.encode) | RAW, min_size=1, max_size=5))
def test_json_of_any_shape_is_metadata(tmp_path_factory, described):
    folder = tmp_path_factory.mktemp("json")
    members = [(f"{i}.{kind}", data) for i, text in enumerate(described) for kind, data in
               (("png", picture(i)), ("json", text), ("txt", b"words"))]  # fmt: skip
    shard = tar(folder / "0.tar", members)
    table = embedding._copy_for_clip(shard, folder / "copy.tar")
    table.to_parquet(folder / "table.parquet")
    assert list(table["image_path"]) == [str(i) for i in range(len(described))]
    assert list(table["caption"]) == ["words"] * len(described)
    assert len(list(images.read_shard(folder / "copy.tar"))) == len(described)


def test_what_a_json_says_of_an_image_stands_beside_it(tmp_path):
    facts = [
        {"url": "http://x", "AESTHETIC_SCORE": 5.5, "path": "/etc/passwd", "exif": {"a": [1]}},
        {"url": None},
        ["x"],
    ]
    shard = tar(
        tmp_path / "0.tar",
        [(f"{i}.{kind}", data) for i, said in enumerate(facts) for kind, data in
         (("jpg", picture(i, "JPEG")), ("json", json.dumps(said).encode()))],
    )  # fmt: skip
    table = embedding._copy_for_clip(shard, tmp_path / "copy.tar")
    assert list(table.columns) == ["image_path", "url", "AESTHETIC_SCORE", "exif", "caption", "offset", "length"]
    assert list(table["url"]) == ["http://x", None, None] or table["url"].isna().tolist() == [False, True, True]
    assert table["exif"][0] == '{"a": [1]}'
    for row in table.itertuples():  # the places are those in the shard itself
        assert shard.read_bytes()[row.offset : row.offset + row.length] == picture(int(row.image_path), "JPEG")


def test_captions_come_from_the_text_else_from_the_json():
    for sample, expected in [
        ({"txt": "é".encode("latin-1")}, "é"),
        ({"txt": "é".encode("utf-16"), "json": b'{"caption": "other"}'}, "é"),
        ({"json": b'{"caption": "words"}'}, "words"),
        ({"json": b'{"text": "words", "caption": ["", null, "a", "b"]}'}, "a"),
        ({"json": b'{"TEXT": "words", "captions": [], "description": "more"}'}, "words"),
        ({"json": b'{"captions": [["a"], "b"], "tags": ["a"]}'}, "b"),
        ({"json": b'{"caption": null, "text": "words"}'}, "words"),
        ({"json": b"no json"}, None),
        ({}, None),
    ]:
        assert captioned_pool.caption(sample, captioned_pool.facts(sample)) == expected


def test_shards_without_an_image_count_as_nothing(tmp_path, without_clip, capsys):
    shards = [
        tar(tmp_path / "a.tar", []),
        tar(tmp_path / "b.tar", [("0.txt", b"words"), ("1.json", b"{}")]),
        tar(tmp_path / "c.tar", [("0.jpg", b"no image"), ("1.jpg", b"")]),
        tar(tmp_path / "cut.tar", [("0.jpg", CUT), ("1.jpg", CUT)]),
        tar(
            tmp_path / "d.tar",
            [("0.png", picture()), ("1.jpg", b"no image"), ("2.txt", b"words"), ("3.PNG", picture())],
        ),
    ]
    embedding.embed(shards, "model", tmp_path / "embeddings", batch_size=4, threads=1, places=True)
    names = [
        sorted(file.name for file in (tmp_path / "embeddings" / part).iterdir()) for part in ("img_emb", "metadata")
    ]
    assert names == [["000004.npy"], ["000004.parquet"]]
    assert list(pd.read_parquet(tmp_path / "embeddings/metadata/000004.parquet")["image_path"]) == ["0", "3"]
    output = capsys.readouterr().out
    assert "c.tar: 2 of 2 samples are left out: 2 images cannot be read, 0 have no image" in output
    assert "cut.tar: all of 2 images are damaged and left out" in output
    assert "d.tar: 2 of 4 samples are left out: 1 images cannot be read, 1 have no image" in output
    embedding.embed(shards[:4], "model", tmp_path / "nothing", batch_size=4, threads=1)
    with pytest.raises(files.BadInput, match="no shard of the pool holds an image that can be read"):
        embedding.build_index([tmp_path / "nothing"], tmp_path / "index", exact=True, memory="1G", threads=1)


def test_a_damaged_shard_stops_the_embedding_by_its_name(tmp_path, without_clip):
    good = tar(tmp_path / "a.tar", [("0.png", picture())])
    (tmp_path / "b.tar").write_bytes(good.read_bytes()[:1024])
    with pytest.raises(files.BadInput, match=r"the shard .*b.tar cannot be read"):
        embedding.embed([good, tmp_path / "b.tar"], "model", tmp_path / "embeddings", batch_size=4, threads=1)
    assert not (tmp_path / "embeddings").exists()


def test_a_captioned_pool_leaves_out_what_cannot_be_read(tmp_path, capsys):
    shard = tar(
        tmp_path / "0.tar",
        [
            ("0.PNG", picture(9)),
            ("0.txt", "é".encode("latin-1")),
            ("1.jpg", b"none"),
            ("1.txt", b"x"),
            ("2.jpg", picture()),
        ],
    )
    loaded = captioned_pool.CaptionedPool([shard], 4)
    assert loaded.captions == ["é"] and loaded.pixels.shape == (1, 3, 4, 4)
    assert "left out: cannot read 1 in" in capsys.readouterr().out


# --- pools in the plan ----------------------------------------------------------------------------------


def test_a_pool_of_images_is_packed_without_what_cannot_be_read(tmp_path, capsys):
    folder = tmp_path / "pool"
    folder.mkdir()
    (folder / "a.PNG").write_bytes(picture(1))
    (folder / "a.txt").write_bytes("\ufeffwörds".encode("utf-16-le"))
    (folder / "b.jpg").write_bytes(b"no image")
    (folder / "c.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "._a.png").write_bytes(picture(1))
    names = SOURCES["folder"].files(folder)
    assert [name.rpartition("/")[2] for name in names] == ["a.PNG", "b.jpg", "c.jpg"]
    assert pools.states(names)[2] == [names[2], None, None]
    pools.pack(names, tmp_path / "0.tar", max_image_size=64, max_pixels=1000)
    ((_, sample),) = images.read_shard(tmp_path / "0.tar")
    assert sample["txt"].decode() == "wörds"
    output = capsys.readouterr().out
    assert "b.jpg: cannot read image" in output and "c.jpg: cannot read" in output


@pytest.mark.parametrize("change", [b"other", b"longer than before"])
def test_a_changed_file_of_a_pool_is_noticed(tmp_path, change):
    """Also where its size is what it was."""
    one, other = tmp_path / "one.jpg", tmp_path / "other.jpg"
    one.write_bytes(b"first")
    other.write_bytes(b"alike")
    before = pools.states([str(one), str(other)])
    one.write_bytes(change)
    os.utime(one, ns=(0, before[0][2] + 1))
    after = pools.states([str(one), str(other)])
    assert after[0] != before[0] and after[1] == before[1]


@pytest.mark.parametrize(
    ("source", "names", "sentence"),
    [
        ("folder", [], "there is no image in"),
        (
            "folder",
            ["a.txt", "b.heics", ".hidden.png"],
            "there is no image in .* but 1 .heics .*, 1 .txt, 1 hidden or system files",
        ),
        ("shards", ["a.tar.gz", "._a.tar"], r"there is no \*.tar in"),
        ("urls", ["a.csv", "._a.parquet"], r"there is no \*.parquet or \*.tsv in"),
        ("shards", ["a.tar"], "the shard .*a.tar cannot be read: it is damaged"),
        ("urls", ["a.parquet"], "a.parquet is not a Parquet file"),
    ],
)
def test_a_pool_that_cannot_be_used_is_refused_in_the_plan(tmp_path, source, names, sentence, monkeypatch):
    monkeypatch.setattr(folders, "reads_heif", lambda: False)
    for name in names:
        (tmp_path / name).write_text("text")
    study = SimpleNamespace(pool=Pool(source=source, path=str(tmp_path)), retrieval=Retrieval())
    with pytest.raises(checks.ConfigError, match=f"studies.x.pool.path: .*{sentence}") as error:
        checks.check_pool(study, "studies.x")
    assert "\n" not in str(error.value)


# --- metadata of an index -------------------------------------------------------------------------------

PARTS = [
    {"url": pa.array(["u0", "u1"]), "caption": pa.array(["c0", None]), "aesthetic": pa.array([5.5, None])},
    {"URL": pa.array(["u2", "u3"]), "TEXT": pa.nulls(2)},
    {"caption": pa.array([1, 2]), "url": pa.array(["u4", "u5"]).dictionary_encode()},
    {"url": pa.array([["a"], []]), "aesthetic": pa.array(["6.5", "none"]), "caption": pa.array([b"\xe9", b"x"])},
    {"similarity": pa.array([0.1, 0.2])},
]
SAID = {
    "url": ["u0", "u1", "u2", "u3", "u4", "u5", "a", None, None, None],
    "caption": ["c0", None, None, None, "1", "2", "é", "x", None, None],
    "aesthetic": [5.5, None, None, None, None, None, 6.5, None, None, None],
}


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@settings(FAMILY, max_examples=20)
@given(order=st.permutations(range(len(PARTS))))
def test_parts_of_different_columns_and_types_are_joined_by_name(tmp_path_factory, kind, order):
    folder = tmp_path_factory.mktemp("index")
    (folder / "metadata").mkdir()
    for place, number in enumerate(order):
        part = pa.table(PARTS[number])
        if kind == "parquet":
            pq.write_table(part, folder / "metadata" / f"{place}.parquet")
        else:
            with pa.ipc.new_file(str(folder / "metadata" / f"{place}.arrow"), part.schema) as writer:
                writer.write_table(part)
    expected = [2 * number + row for number in order for row in range(2)]
    table = metadata_of(folder, range(len(expected))).astype(object)
    table = table.where(table.notna(), None)
    assert {name: list(table[name]) for name in SAID} == {
        name: [values[place] for place in expected] for name, values in SAID.items()
    }


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"url": pa.array(["a", "b"]).dictionary_encode()}, ["a", "b"]),
        ({"url": pa.array(["a", "b"], pa.large_string())}, ["a", "b"]),
        ({"similarity": pa.array([0.1, 0.2])}, [None, None]),
    ],
)
def test_metadata_of_one_part_in_several_batches(tmp_path, monkeypatch, part, said):
    (tmp_path / "metadata").mkdir()
    pq.write_table(pa.table(part), tmp_path / "metadata" / "0.parquet", row_group_size=1)
    monkeypatch.setattr(metadata, "BATCH", 1)
    assert list(metadata_of(tmp_path, [0, 1])["url"]) == said
