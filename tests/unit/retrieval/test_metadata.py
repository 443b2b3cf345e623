"""Metadata of an index: rows wherever batches, row groups and files begin, without a copy of what is not asked for."""

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieving import metadata_of

from augbench.retrieval import metadata

FAMILY = settings(deadline=None, max_examples=30)


def facts(start, count):
    """Rows of metadata that say their own id; every fifth has no caption."""
    ids = range(start, start + count)
    return pd.DataFrame(
        {
            "url": [f"http://example.org/{i}.jpg" for i in ids],
            "caption": [None if i % 5 == 0 else f"number {i}" for i in ids],
            "aesthetic": np.arange(start, start + count) / 4,
        }
    )


def write(folder, kind, layout):
    """Metadata of files, each of which consists of parts (Arrow's batches, or Parquet's row groups) of so many rows."""
    (folder / "metadata").mkdir(parents=True)
    tables, begin = [], 0
    for number, sizes in enumerate(layout):
        parts = []
        for size in sizes:
            parts.append(facts(begin, size))
            begin += size
        tables += parts
        schema = pa.Table.from_pandas(facts(0, 2), preserve_index=False).schema
        file = folder / "metadata" / f"{number:03d}.{kind}"
        writer = pa.ipc.new_file(str(file), schema) if kind == "arrow" else pq.ParquetWriter(file, schema)
        with writer:
            for part in parts:
                table = pa.Table.from_pandas(part, schema=schema, preserve_index=False)
                if len(part) or kind == "arrow":
                    writer.write_table(table)
    return pd.concat(tables, ignore_index=True)


LAYOUTS = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=4), min_size=1, max_size=4)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
@FAMILY
@given(data=st.data(), layout=LAYOUTS.filter(lambda layout: sum(map(sum, layout))))
def test_rows_are_those_of_pandas_in_any_order_and_any_layout(tmp_path_factory, kind, data, layout):
    folder = tmp_path_factory.mktemp("index")
    every = write(folder, kind, layout)
    asked = data.draw(st.lists(st.integers(0, len(every) - 1), max_size=30))
    assert metadata.shape(folder) == (len(every), ["aesthetic", "caption", "url"])
    rows = metadata_of(folder, asked)[list(every)]
    pd.testing.assert_frame_equal(rows, every.iloc[asked].reset_index(drop=True), check_dtype=False)


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_tables_are_completed_in_their_order_however_many_are_read_together(tmp_path, monkeypatch, at_once):
    every = write(tmp_path, "parquet", [[20, 20], [10]])
    monkeypatch.setattr(metadata, "PASS", at_once)
    random = np.random.default_rng(0)
    tables = [
        pd.DataFrame({"id": random.integers(0, 50, size), "similarity": 0.5, "duplicate_of": None})
        for size in (4, 0, 9, 1)
    ]
    completed = list(metadata.reader(tmp_path, metadata.WANTED).complete(iter(tables)))
    assert [list(table["url"]) for table in completed] == [list(every["url"].iloc[table["id"]]) for table in tables]


def test_parquet_is_passed_over_once_for_many_queries_and_only_where_rows_are_asked_for(tmp_path, monkeypatch):
    write(tmp_path, "parquet", [[10, 10], [10, 10]])
    read = []
    batches = pq.ParquetFile.iter_batches

    def noted(self, size, row_groups, columns):
        read.extend(row_groups)
        return batches(self, size, row_groups=row_groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    tables = [pd.DataFrame({"id": [2, 25 + k], "similarity": 1.0, "duplicate_of": None}) for k in range(4)]
    list(metadata.reader(tmp_path, metadata.WANTED).complete(tables))
    assert read == [0, 0]  # the first row group of either file


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_a_query_copies_the_rows_that_it_asks_for_and_no_column(tmp_path, kind):
    """4 parts of 5,000 rows, 4 MB of captions each: of a column of 16 MB a query of 40 rows may copy no batch."""
    (tmp_path / "metadata").mkdir()
    part = pa.table({"url": pa.array(["http://example.org/"] * 5000), "caption": pa.array(["x" * 800] * 5000)})
    file = tmp_path / "metadata" / f"0.{kind}"
    with pa.ipc.new_file(str(file), part.schema) if kind == "arrow" else pq.ParquetWriter(file, part.schema) as writer:
        for _ in range(4):
            writer.write_table(part)
    reader = metadata.reader(tmp_path, metadata.WANTED)
    usual = pa.default_memory_pool()
    monitored = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(monitored)
    try:
        rows = reader.rows(np.arange(0, 20_000, 500)).to_pandas()
    finally:
        pa.set_memory_pool(usual)
    assert len(rows) == 40 and set(rows["caption"].str.len()) == {800}
    limit = 200_000 if kind == "arrow" else 12_000_000  # Parquet decodes a batch of one row group
    assert 0 < monitored.max_memory() < limit


def test_compressed_batches_are_read_one_at_a_time(tmp_path):
    (tmp_path / "metadata").mkdir()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    table = pa.Table.from_pandas(facts(0, 10), preserve_index=False)
    with pa.ipc.new_file(str(tmp_path / "metadata" / "0.arrow"), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=3)
    assert metadata.shape(tmp_path)[0] == 10
    assert list(metadata_of(tmp_path, [9, 0, 4])["aesthetic"]) == [9 / 4, 0, 1]


def test_hdf5_gives_the_same_rows(tmp_path):
    every = facts(0, 12)
    with h5py.File(tmp_path / "metadata.hdf5", "w") as file:
        group = file.create_group("dataset")
        for name in ("url", "aesthetic"):
            values = every[name].to_numpy()
            group.create_dataset(name, data=values.astype("S") if name == "url" else values)
    rows = metadata_of(tmp_path, [7, 7, 0])
    assert list(rows["url"]) == [f"http://example.org/{i}.jpg" for i in (7, 7, 0)]
    assert list(rows["aesthetic"]) == [7 / 4, 7 / 4, 0]


@pytest.mark.parametrize(
    ("url", "caption", "aesthetic"),
    [
        ("url", "text", "aesthetic_score_laion_v2"),
        ("URL", "TEXT", "AESTHETIC_SCORE"),
        ("image_url", "captions", "none"),
    ],
)
def test_columns_are_known_as_data_sets_call_them(tmp_path, url, caption, aesthetic):
    """COYO's, LAION's, and captions of which an image has several."""
    (tmp_path / "metadata").mkdir()
    captions = [["", "a", "b"], None, ["c"]] if caption == "captions" else ["a", None, "c"]
    table = pd.DataFrame({"id": ["x"] * 3, url: ["u", "v", "w"], caption: captions, aesthetic: [5.5, None, 6.5]})
    table.to_parquet(tmp_path / "metadata" / "0.parquet")
    rows = metadata_of(tmp_path, [2, 0, 1])
    assert list(rows["url"]) == ["w", "u", "v"] and list(rows["caption"]) == ["c", "a", None]
    assert rows["aesthetic"].fillna(0).tolist() == ([0, 0, 0] if aesthetic == "none" else [6.5, 5.5, 0])
