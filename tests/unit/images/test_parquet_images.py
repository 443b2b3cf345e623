"""Parquet files of images: a family of the layouts in which data sets are published, against the rows themselves."""

import io
import json
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from augbench import images
from augbench.audit import hashes
from augbench.core.files import BadInput
from augbench.images import parquet_images
from augbench.models.captioned_pool import CaptionedPool
from augbench.models.captioned_pool import samples as samples_of
from augbench.study.sources import SOURCES, spellings

COUNT = 45  # more than a batch
USUAL = spellings({})


def picture(number):
    data = io.BytesIO()
    Image.new("RGB", (9, 8), (number, 2 * number, 3)).save(data, "JPEG" if number % 2 else "PNG")
    return data.getvalue()


PICTURES = [None if number == 40 else picture(number) for number in range(COUNT)]
CAPTIONS = [None if number % 9 == 4 else f"caption {number} é" for number in range(COUNT)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def structs(kind=STRUCT):
    return pa.array([None if data is None else {"bytes": data, "path": "x.jpg"} for data in PICTURES], kind)


LAYOUTS = {  # columns of images and captions
    "datasets": {"image": structs(), "text": pa.array(CAPTIONS)},
    "path first": {
        "caption": pa.array(CAPTIONS, pa.large_string()),
        "image": structs(pa.struct([("path", pa.string()), ("bytes", pa.large_binary())])),
    },
    "bytes": {"jpg": pa.array(PICTURES), "TEXT": pa.array(CAPTIONS).dictionary_encode(), "mask": pa.array(PICTURES)},
    "any name": {"pixels": pa.array(PICTURES, pa.large_binary()), "alt_text": pa.array(CAPTIONS)},
    "several captions": {
        "image": structs(),
        "captions": pa.array([None if said is None else [None, said, "other"] for said in CAPTIONS]),
    },
}


def write(path, layout, group=7):
    path.parent.mkdir(exist_ok=True, parents=True)
    facts = {
        "url": [f"http://x/{i}" for i in range(COUNT)],
        "width": [9] * COUNT,
        "boxes": [[[0.5]]] * COUNT,
        "made": pa.array([0] * COUNT, pa.timestamp("s")),
    }
    pq.write_table(pa.table(LAYOUTS[layout] | facts), path, row_group_size=group)
    return path


@pytest.mark.parametrize("group", [7, COUNT])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_samples_whose_images_load_from_where_they_lie(layout, group, tmp_path):
    path = write(tmp_path / "a.parquet", layout, group)
    assert parquet_images.check(path, USUAL) == COUNT
    read = list(parquet_images.samples(path, USUAL))
    assert [key for key, _ in read] == [str(number) for number in range(COUNT)]
    for number, (_, sample) in enumerate(read):
        said = json.loads(sample["json"].data)
        assert said == {"url": f"http://x/{number}", "width": 9, "made": "1970-01-01 00:00:00"}
        assert (sample["txt"].data.decode() if "txt" in sample else None) == CAPTIONS[number]
        assert ("jpg" in sample) == (PICTURES[number] is not None)
        if "jpg" in sample:
            data, offset, length = sample["jpg"]
            assert data == PICTURES[number] and length == len(data)
            row = pd.Series({"image_id": "x", "path": str(path), "offset": offset, "length": length})
            assert images.load_bytes(row) == data


def test_a_caption_has_the_name_that_the_pool_says(tmp_path):
    table = pa.table({"image": structs(), "text": ["wrong"] * COUNT, "title": CAPTIONS})
    pq.write_table(table, tmp_path / "a.parquet")
    said = [sample.get("txt") for _, sample in samples_of(tmp_path / "a.parquet", {"caption": "title"})]
    assert [member and member.data.decode() for member in said] == CAPTIONS


def test_a_list_that_has_a_known_name_is_kept_and_any_other_left(tmp_path):
    write(tmp_path / "a.parquet", "datasets")
    _, sample = next(parquet_images.samples(tmp_path / "a.parquet", USUAL | {"faces": ["boxes"]}))
    assert json.loads(sample["json"].data)["faces"] == [[0.5]]


def test_small_models_are_trained_on_such_files(tmp_path):
    pool = CaptionedPool([write(tmp_path / "a.parquet", "datasets")], 8)
    known = [number for number in range(COUNT) if PICTURES[number] and CAPTIONS[number]]
    assert pool.captions == [CAPTIONS[number] for number in known]
    assert np.allclose(pool.pixels[:, 0].float().mean((1, 2)), known, atol=2)


def test_files_of_a_data_set_are_found_at_any_depth(tmp_path):
    source = SOURCES["huggingface"]
    files = [write(tmp_path / name, "datasets") for name in ("data/train-00001.parquet", "data/train-00000.parquet")]
    for name in (".cache/huggingface/x.parquet", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    assert source.files(tmp_path) == sorted(map(str, files))
    assert source.files(files[0]) == [str(files[0])]
    assert dict(source.left_out(tmp_path)) == {".md": 1}
    source.check(tmp_path)


@pytest.fixture
def begun(monkeypatch):
    """The row groups that are begun to be read, and the rows of each batch that is decoded, two at a time."""
    groups, batches, read = [], [], parquet_images._batches

    def counted(path, chosen, columns):
        groups.append((path, *chosen))
        for batch in read(path, chosen, columns):
            batches.append(len(batch))
            yield batch

    monkeypatch.setattr(parquet_images, "_batches", counted)
    monkeypatch.setattr(parquet_images, "BATCH", 2)
    return groups, batches


def shuffled(tmp_path, group=7):
    """The rows of two files that have an image, in any order, as an image table; and the number of row groups."""
    files = [write(tmp_path / name, "datasets", group) for name in ("b.parquet", "a.parquet")]
    rows = [(str(file), row) for file in files for row in range(COUNT) if PICTURES[row]]
    random.Random(0).shuffle(rows)
    table = images.table({"image_id": f"{file}:{row}", "path": file, "offset": row} for file, row in rows)
    return table, 2 * -(-COUNT // group)


def test_a_job_that_loads_all_rows_reads_each_row_group_once(tmp_path, begun):
    table, count = shuffled(tmp_path)
    groups, batches = begun
    values = hashes.hashes(table)
    assert len(groups) == len(set(groups)) == count
    assert sum(batches) == 2 * COUNT
    lone = {row: hashes.hashes(table.iloc[[row]])[0] for row in (0, 1, 50, 87)}
    assert {row: values[row] for row in lone} == lone
    assert len(set(values)) > 1


def test_rows_that_are_loaded_about_in_their_order_share_what_is_read(tmp_path, begun):
    """As threads do: each second row of a file before the first."""
    table, _ = shuffled(tmp_path, COUNT)
    rows = images.References(table)
    ordered = [rows[place] for place in rows.reading_order()]
    for place in range(0, len(ordered) - 1, 2):
        if ordered[place].path == ordered[place + 1].path:
            ordered[place : place + 2] = ordered[place + 1], ordered[place]
    assert [images.load_bytes(row) for row in ordered] == [PICTURES[row.offset] for row in ordered]
    assert len(begun[0]) == 2
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(images.load_bytes, ordered)) == [PICTURES[row.offset] for row in ordered]


def test_rows_load_in_any_order_and_a_file_that_changed_is_read_anew(tmp_path, begun):
    table, _ = shuffled(tmp_path, COUNT)
    assert [images.load_bytes(row) for row in table.itertuples()] == [PICTURES[row] for row in table["offset"]]
    path = tmp_path / "a.parquet"
    assert parquet_images.load(path, 1) == PICTURES[1]
    pq.write_table(pa.table({"image": pa.array([b"x", b"yy"])}), path)
    assert parquet_images.load(path, 1) == b"yy"
    with pytest.raises(BadInput, match="has no row 2; it has changed since it was read"):
        parquet_images.load(path, 2)
    path.unlink()
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        parquet_images.load(path, 1)


def test_a_row_of_no_image_is_empty_and_what_follows_is_not(tmp_path):
    path = write(tmp_path / "a.parquet", "bytes")
    assert [parquet_images.load(path, row) for row in (40, 41, 39)] == [b"", PICTURES[41], PICTURES[39]]


def test_files_and_shards_are_loaded_as_they_are_listed(tmp_path):
    write(tmp_path / "a.parquet", "datasets")
    places = [("b.png", None), ("x.tar", 9), ("a.parquet", 3), ("a.parquet", 1), ("a.png", None), ("x.tar", 2)]
    table = images.table({"image_id": str(n), "path": path, "offset": row} for n, (path, row) in enumerate(places))
    assert images.References(table).reading_order().tolist() == [0, 1, 4, 5, 3, 2]
    assert images.References(table.iloc[[5, 4, 0]]).reading_order().tolist() == [0, 1, 2]


def test_the_largest_row_group_is_measured_by_its_images_alone(tmp_path):
    rows = pa.table({"image": pa.array([bytes(range(200))] * 3 + [b"x"] * 4), "text": ["y" * 999] * 7})
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=3, compression="none", use_dictionary=False)
    count, size = parquet_images.largest_row_group(tmp_path / "a.parquet")
    assert count == 3 and 600 < size < 1500


REFUSED = {
    "no image": ({"text": pa.array(["a"])}, r"has no column of images, and none called image \(it has text \(string\)"),
    "two": ({"a": pa.array([b"x"]), "b": pa.array([b"x"])}, "has several columns of images, and none called image"),
    "captions that are none": ({"image": pa.array([b"x"]), "text": pa.array([{"a": 1}])}, "column 'text' holds struct"),
    "no rows": ({"image": pa.array([], pa.binary())}, "has no rows"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_holds_no_images_is_one_sentence(kind, tmp_path):
    columns, sentence = REFUSED[kind]
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=sentence):
        SOURCES["huggingface"].check(tmp_path)
