"""Lists of any length and kind: CSV in any separator, encoding and spelling, Parquet of any type, or one sentence."""

import csv
import gzip
import io
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from augbench.core import list_files, texts
from augbench.core.files import BadInput
from augbench.dataset import checks, splits
from augbench.dataset.class_table import class_table
from augbench.retrieval import pools
from augbench.study.config import Dataset, Target
from augbench.study.sources import SOURCES

FAMILY = settings(derandomize=True, max_examples=80, deadline=None)
COLUMNS = {"path": ["file", "file_name"], "class": ["label"], "split": ["set"]}
WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6) | st.sampled_from(
    ["NA", "None", "null", "NaN", "", "nan", "N/A", "a,b", "x;y", 'say "hi"', "true", "007", "1e3", "é", "日本"]
)
NAMES = st.sampled_from(["path", "PATH", " File Name", "file-name", "filename"])


def rows_of(path):
    return [tuple(row.values()) for row in list_files.read(path, COLUMNS, ["path", "class"]).to_pylist()]


def written(path, rows, separator=",", encoding="utf-8"):
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


@FAMILY
@given(
    st.lists(st.tuples(WORDS, WORDS), min_size=0, max_size=5),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    NAMES,
    st.sampled_from(["class", "Class", "LABEL", " label "]),
    st.booleans(),
)
def test_cells_are_read_as_they_were_written(tmp_path_factory, rows, separator, encoding, path, label, swapped):
    rows = [(a.strip() or "x", b.strip()) for a, b in rows]
    table = [(path, label, "note"), *((*row, "") for row in rows)]
    if swapped:
        table = [(two, one, three) for one, two, three in table]
    file = written(tmp_path_factory.mktemp("csv") / "list.csv", table, separator, encoding)
    assert rows_of(file) == rows


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty; its first row should name the columns path,class"),
        (b"\n \n", "is empty"),
        (
            b"a/1.jpg,cat\nb,dog\n",
            r"needs the columns path,class; path, class is missing \(its first row has 'a/1.jpg'",
        ),
        (b"path,name\na,b\n", "class is missing"),
        (
            b"path,class\na,b,c\n",
            "has 2 columns, but 3 cells in the row 'a,b,c'; put a cell that holds ','",
        ),
        (b"path,class\na\n", "has 2 columns, but 1 cells in the row 'a'"),
        (b"file,File-Name,class\na,b,c\n", "its columns 'file' and 'File-Name' could both be 'path'"),
        (b"path,class,Class\na,b,c\n", "its columns 'class' and 'Class' could both be 'class'"),
        ("path,class\na,caf\xe9\n".encode("cp1252"), "is not UTF-8: line 2 holds the byte 0xe9; save it as UTF-8"),
        ("path,class\na,b\n".encode("utf-16-le"), "holds zero bytes"),
        (b"PK\x03\x04 and so on", "is an Excel workbook or a zip archive; save it as CSV"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer; fetch the file itself"),
        (b'[{"path": "a", "class": "b"}]', "is JSON; write a CSV or Parquet file"),
        (b"PAR1 no more of it", "is damaged or cut off"),
        (b"\x89PNG\r\n\x1a\n\0\0", "holds zero bytes"),
    ],
)
def test_what_is_no_list_is_said_in_one_sentence(tmp_path, data, sentence):
    file = tmp_path / "list.csv"
    file.write_bytes(data)
    with pytest.raises(BadInput, match=sentence) as error:
        rows_of(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match="there is no file .*gone.csv; it should have the columns path,class"):
        rows_of(tmp_path / "gone.csv")


def test_spreadsheets_and_archives(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"sep=;\r\npath;class\r\na;b\r\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"path,class\na,b\n"))
    (tmp_path / "c.csv").write_bytes(b'\n\npath,class\n\n"a",b')
    assert [rows_of(tmp_path / name) for name in ("a.csv", "b.csv.gz", "c.csv")] == [[("a", "b")]] * 3
    (tmp_path / "d.csv.gz").write_bytes(b"no archive")
    with pytest.raises(BadInput, match="cannot read"):
        rows_of(tmp_path / "d.csv.gz")


@FAMILY
@given(st.binary(max_size=60))
def test_any_bytes_are_a_list_or_a_sentence(tmp_path_factory, data):
    for name in ("list.csv", "list.parquet"):
        file = tmp_path_factory.mktemp("bytes") / name
        file.write_bytes(b"path,class\n" * (len(data) % 2) + data)
        try:
            rows_of(file)
        except BadInput as error:
            assert "\n" not in str(error)


# --- Parquet --------------------------------------------------------------------------------------------

TEXTS = {  # a column of any type -> what it says as text
    "text": (pa.array(["a", None]), ["a", None]),
    "large": (pa.array(["a", None], pa.large_string()), ["a", None]),
    "bytes": (pa.array(["é".encode(), "é".encode("latin-1")]), ["é", "é"]),
    "numbers": (pa.array([7, None]), ["7", None]),
    "floats": (pa.array([3.0, float("nan")]), ["3", None]),
    "fractions": (pa.array([0.5, None]), ["0.5", None]),
    "dictionary": (pa.array(["a", None]).dictionary_encode(), ["a", None]),
    "booleans": (pa.array([True, None]), ["true", None]),
    "null": (pa.nulls(2), [None, None]),
    "lists": (pa.array([[None, "", "a", "b"], []]), ["a", None]),
    "no lists": (pa.array([None, [b"a"]]), [None, "a"]),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_columns_of_all_plain_types_are_text(tmp_path, kind):
    column, expected = TEXTS[kind]
    pq.write_table(pa.table({"url": ["http://x/1", "http://x/2"], "TEXT": column}), tmp_path / "a.parquet")
    SOURCES["urls"].check(tmp_path)
    assert list(pools.url_list([tmp_path / "a.parquet"], 0, 9)["caption"]) == expected


@pytest.mark.parametrize("name", ["url", "caption", "aesthetic"])
@pytest.mark.parametrize("column", [pa.array([["a"], []]), pa.array([{"a": 1}, None])], ids=["lists", "structs"])
def test_columns_of_other_types_are_refused_in_the_plan(tmp_path, name, column):
    if name == "caption" and pa.types.is_list(column.type):
        column = pa.array([[{"raw": "a"}], []])  # of texts they are captions
    table = {"url": pa.array(["http://x/1", None]), name: column}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=rf"a.parquet: its column '{name}' holds (list|struct)<.*; it should hold text"):
        SOURCES["urls"].check(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: path.write_text("url\tcaption\n"), "is not a Parquet file: write it with pandas' to_parquet"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "it is a Git LFS pointer"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(b"PAR1..."), "damaged or cut off"),
        (
            lambda path: pd.DataFrame({"link": ["a"]}).to_parquet(path),
            r"no column url or URL or .* \(it has link\); name it",
        ),
        (lambda path: pd.DataFrame({"url": []}, dtype=str).to_parquet(path), "has no rows; a list has the columns url"),
    ],
)
def test_what_is_no_list_of_addresses_is_refused_in_the_plan(tmp_path, write, sentence):
    write(tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=sentence) as error:
        SOURCES["urls"].check(tmp_path)
    assert "\n" not in str(error.value)


@settings(FAMILY, max_examples=20)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=4), st.integers(1, 12), st.integers(1, 8), st.data())
def test_the_shards_of_lists_of_any_lengths_hold_each_row_once(tmp_path_factory, lengths, size, group, data):
    """Lists of several files of different columns and row groups, cut into shards of any size."""
    folder = tmp_path_factory.mktemp("lists")
    expected = []
    for number, length in enumerate(lengths):
        urls = [f"http://x/{number}/{row}" for row in range(length)]
        spelt = data.draw(st.sampled_from(["url", "URL", "Url"]))
        captions = data.draw(st.sampled_from([None, "caption", "TEXT"]))
        table = {spelt: pa.array(urls, pa.string())}
        if captions:
            table[captions] = pa.array(urls, pa.string())
        pq.write_table(pa.table(table), folder / f"{number}.parquet", row_group_size=group)
        expected += [(url, url if captions else None) for url in urls]
    names = SOURCES["urls"].files(folder)
    shards = [pools.url_list(names, start, start + size) for start in range(0, sum(lengths) + size, size)]
    rows = [pair for shard in shards for pair in zip(shard["url"], shard["caption"], strict=True)]
    assert rows == expected
    assert all(len(shard) <= size for shard in shards)


def test_a_list_without_rows_after_the_last_row_that_is_wanted(tmp_path):
    for number, urls in enumerate([["http://x/0"], []]):
        pq.write_table(pa.table({"url": pa.array(urls, pa.string())}), tmp_path / f"{number}.parquet")
    shard = pools.url_list(SOURCES["urls"].files(tmp_path), 0, 2)
    assert list(shard["url"]) == ["http://x/0"]


def test_only_the_row_groups_that_are_wanted_are_read(tmp_path, monkeypatch):
    pq.write_table(pa.table({"url": [f"u{i}" for i in range(100)]}), tmp_path / "a.parquet", row_group_size=10)
    read, original = [], pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_groups",
        lambda self, groups, **kw: read.extend(groups) or original(self, groups, **kw),
    )
    assert list(pools.url_list([tmp_path / "a.parquet"], 35, 45)["url"]) == [f"u{i}" for i in range(35, 45)]
    assert read == [3, 4]


# --- captions and names ---------------------------------------------------------------------------------


@settings(FAMILY, max_examples=40)
@given(st.text(st.characters(codec="cp1252", exclude_characters="\0"), min_size=2))
def test_captions_are_read_in_any_usual_encoding(text):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert texts.decode(text.encode(encoding)) == text
    try:
        assert texts.decode(text.encode("cp1252")) == text.encode("cp1252").decode("utf-8")  # it could be both
    except UnicodeDecodeError:
        assert texts.decode(text.encode("cp1252")) == text


@given(st.binary())
@FAMILY
def test_any_bytes_are_a_caption(data):
    texts.decode(data).encode("utf-8")


# --- lists of labelled images ---------------------------------------------------------------------------


def images_at(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(root / name, "PNG")


def study(path, **more):
    return Target(reader="list", path=str(path), **more)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_classes_called_na_none_and_null_are_classes(tmp_path, kind):
    keys = ["NA", "None", "null", "SE", "nan", ""]
    names = [f"{number}.png" for number in range(30)]
    images_at(tmp_path, *names)
    table = pd.DataFrame({"path": names, "class": (keys[:5] * 6)})
    path = tmp_path / f"list.{kind}"
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    checks.check(study(path))
    rows = splits.split(study(path), Dataset(train=0.4, validation=0.3, test=0.3), 1)
    assert rows["class"].value_counts().to_dict() == dict.fromkeys(keys[:5], 6)
    table.loc[3, "class"] = None
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    with pytest.raises(BadInput, match="row 4 below the column names has no class"):
        checks.check(study(path))


def test_the_spellings_of_a_list(tmp_path):
    images_at(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    lines = ["File_Name\tLabel\tSet", "./a/1.png\tcat\tTrain", "a\\2.png\tcat\tTESTING", "b/1.png\tdog\ttraining",
             "b/./2.png\tdog\tTest"]  # fmt: skip
    (tmp_path / "list.tsv").write_text("\n".join(lines), encoding="utf-16")
    checks.check(study(tmp_path / "list.tsv"))
    rows = splits.split(study(tmp_path / "list.tsv"), Dataset(train=1, validation=0), 1)
    assert rows[["image_id", "class", "split"]].to_numpy().tolist() == [
        ["a/1.png", "cat", "train"], ["a/2.png", "cat", "test"],
        ["b/1.png", "dog", "train"], ["b/2.png", "dog", "test"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], "has no rows; each names an image"),
        (["0.png,", "1.png,b"], "row 1 below the column names has no class"),
        (["0.png,a", ",b"], "row 2 below the column names has no path"),
        (["0.png,a", "0.png,b"], r"gives different classes or splits for 0.png: a \(train\) and b \(train\); keep one"),
        (["0.png,a", "./0.png,b"], "gives different classes or splits for 0.png"),
        (["0.png,a", "1.png,a"], "has 1 classes; at least two are needed"),
        (
            ["0.png,a", "8.png,b", "9.png,b"],
            r"8.png, which .*list.csv names \(2 of 3 files are missing\); remove these rows",
        ),
        (["x/0.png,a", "x/1.png,b"], "there is no file .*x/0.png, nor any other of .*; its paths are relative to"),
        (["https://x/0.png,a", "https://x/1.png,b"], "lists URLs, not files; download the images first"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path, lines, sentence):
    images_at(tmp_path, "0.png", "1.png")
    (tmp_path / "list.csv").write_text("\n".join(["path,class", *lines]))
    with pytest.raises(BadInput, match=sentence) as error:
        checks.check(study(tmp_path / "list.csv"))
    assert "\n" not in str(error.value)


def test_a_split_of_another_name_is_said_with_its_row(tmp_path):
    images_at(tmp_path, "0.png", "1.png")
    (tmp_path / "list.csv").write_text("path,class,split\n0.png,a,train\n1.png,b,unlabelled\n")
    with pytest.raises(
        BadInput, match="row 2 below the column names: a split is train, validation or test, not 'unlab"
    ):
        checks.check(study(tmp_path / "list.csv"))


def test_rows_that_are_repeated_count_once_and_missing_files_are_left_out_when_asked(tmp_path, capsys):
    names = [f"{number}.png" for number in range(8)]
    images_at(tmp_path, *names)
    lines = [f"{name},{'ab'[number % 2]}" for number, name in enumerate(names)]
    (tmp_path / "list.csv").write_text("\n".join(["path,class", *lines, *lines[:3], "gone.png,a"]))
    given_ = study(tmp_path / "list.csv", unreadable="skip")
    checks.check(given_)
    assert checks.left_out(given_) == {"rows that say what another says": 3}
    rows = splits.split(given_, Dataset(train=0.5, validation=0.25, test=0.25), 1)
    assert len(rows) == 8
    assert "gone.png: it is not there" in capsys.readouterr().out


def test_a_table_of_names_is_read_as_a_list_is(tmp_path):
    images_at(tmp_path, "NA/0.png", "b/0.png")
    given_ = Target(reader="folder", path=str(tmp_path), classes=str(tmp_path / "names.csv"))
    (tmp_path / "names.csv").write_text("Class;Name\nNA;Namibia, south west\n;\n", encoding="utf-16")
    assert list(class_table(given_)["lemmas"]) == ["Namibia, south west", "b"]
    (tmp_path / "names.csv").write_bytes("class,lemmas\nb,caf\xe9\n".encode("latin-1"))
    with pytest.raises(BadInput, match=r"names.csv is not UTF-8: line 2 holds the byte 0xe9"):
        checks.check(given_)
    (tmp_path / "names.csv").write_text("class,lemmas\nb,one\nb,two\n")
    with pytest.raises(BadInput, match="names.csv names the class 'b' twice"):
        checks.check(given_)


def test_a_long_list_is_a_few_columns_and_no_object_for_each_row(tmp_path):
    count = 200_000
    number = np.arange(count)
    table = pa.table(
        {"path": pa.array([f"{i:07d}.jpg" for i in number]), "class": pa.array((number % 100).astype(str))}
    )
    pq.write_table(table, tmp_path / "list.parquet")

    tracemalloc.start()
    layout = study(tmp_path / "list.parquet").reader.layout(study(tmp_path / "list.parquet"))
    assert len(layout.classes) == 100
    assert sum(1 for _ in layout.train("7")) == count // 100
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
