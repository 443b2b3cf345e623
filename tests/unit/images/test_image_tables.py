"""Image tables of which columns, distinct images or some rows are read, against pandas."""

import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augbench import images

FAMILY = settings(deadline=None, max_examples=30)


def table(*ids):
    return images.table(
        {"image_id": f"i{k}", "class": f"c{k % 3}", "path": f"{k}.tar", "prompt": f"p{k}"}
        | ({"offset": 512 * k, "length": 9} if k % 2 else {})
        for k in ids
    )


def write(folder, *tables):
    paths = [folder / f"{number}.parquet" for number in range(len(tables))]
    for path, each in zip(paths, tables, strict=True):
        images.write(path, each)
    return paths


def plain(rows):
    """With texts as Python has them, and None where there is no number."""
    return rows.astype(object).where(rows.notna(), None)


def test_columns_are_those_of_the_whole_table_in_arrows_types(tmp_path):
    paths = write(tmp_path, table(0, 1, 2), table(4, 3))
    rows = images.read_columns(*paths)
    assert list(rows) == list(images.REFERENCE)
    pd.testing.assert_frame_equal(plain(rows), plain(images.read(*paths)[list(images.REFERENCE)]))
    assert all(rows[name].dtype == pd.ArrowDtype(pa.large_string()) for name in ("image_id", "class", "path"))
    assert images.read_columns(columns=["class"]).empty


@pytest.mark.middle  # takes seconds
@FAMILY
@given(sets=st.lists(st.lists(st.integers(0, 12), unique=True, max_size=8), min_size=1, max_size=5))
def test_distinct_images_and_their_places_are_those_of_pandas(tmp_path_factory, sets):
    paths = write(tmp_path_factory.mktemp("sets"), *(table(*ids) for ids in sets))
    rows, places = images.read_distinct(*paths)
    wanted = images.read(*paths).drop_duplicates("image_id", ignore_index=True)[list(images.REFERENCE)]
    pd.testing.assert_frame_equal(plain(rows), plain(wanted))
    assert [list(rows["image_id"].iloc[each]) for each in places] == [[f"i{k}" for k in ids] for ids in sets]


def test_equal_sets_are_read_once(tmp_path, monkeypatch):
    """Of sets whose images are all known, nothing but the ids is read."""
    paths = write(tmp_path, table(1, 2, 3), table(3, 1, 2), table(1, 2, 3))
    read = []
    module = sys.modules[images.read_distinct.__module__]
    columns_of = module._columns
    monkeypatch.setattr(module, "_columns", lambda path, names: read.append(len(names)) or columns_of(path, names))
    images.read_distinct(*paths)
    assert read == [1, len(images.REFERENCE), 1, 1]


@pytest.mark.middle  # takes seconds
@FAMILY
@given(data=st.data())
def test_rows_at_places_are_those_of_the_joined_table(tmp_path_factory, data):
    paths = write(tmp_path_factory.mktemp("rows"), table(*range(5)), table(), table(*range(5, 12)))
    every = images.read(*paths)
    places = np.array(data.draw(st.lists(st.integers(0, 11), max_size=9)), np.int64)
    rows = images.read_rows(paths, places)
    pd.testing.assert_frame_equal(plain(rows), plain(every.iloc[places].reset_index(drop=True)))


def test_references_are_made_when_they_are_asked_for(tmp_path):
    for rows in (table(0, 1, 2), images.read_columns(*write(tmp_path, table(0, 1, 2)))):
        references = images.References(rows)
        assert len(references) == 3
        assert references[1] == ("i1", "1.tar", 512, 9)
        assert [row.image_id for row in references] == ["i0", "i1", "i2"]
        assert references[::2] == [("i0", "0.tar", None, None), ("i2", "2.tar", None, None)]


def test_a_digest_is_of_the_references_alone_however_they_are_stored(tmp_path):
    paths = write(tmp_path, table(*range(6)), table(*range(3)), table(*range(3, 6)))
    whole = images.digest(images.read(paths[0]))
    assert images.digest(images.read_columns(*paths[1:])) == whole
    assert images.digest(images.read(paths[0]).assign(prompt="other")) == whole
    for name, value in {"image_id": "x", "class": "x", "path": "x", "offset": 1, "length": 1}.items():
        changed = images.read(paths[0])
        changed.loc[3, name] = value
        assert images.digest(changed) != whole
    assert images.digest(images.read(paths[0]).iloc[::-1]) != whole


def test_batches_of_rows_are_the_bytes_of_a_table(tmp_path):
    rows = [{"image_id": f"i{k}", "class": "c", "path": "x", "similarity": k / 4} for k in range(5)]
    images.write(tmp_path / "whole.parquet", images.table(rows))
    images.write_batches(tmp_path / "batches.parquet", iter([rows[:2], [], rows[2:]]))
    assert (tmp_path / "batches.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(ValueError, match="image_id 'i0' occurs twice"):
        images.write_batches(tmp_path / "twice.parquet", [rows, rows[:1]])
