"""Lists of tab-separated lines, against the rows that were written."""

import itertools

import pandas as pd
import pytest

from augbench.core import tsv_files
from augbench.core.files import BadInput
from augbench.retrieval import pools
from augbench.study.sections.retrieval import Pool
from augbench.study.sources import SOURCES, spellings

ROWS = [(f"https://x/{i}.jpg", None if i % 5 == 3 else f"a \"quoted, ünusual' caption {i}") for i in range(40)]
LAYOUTS = {  # header and order of the cells
    "cc12m": ([], [0, 1]),
    "cc3m": ([], [1, 0]),
    "laion": (["URL", "TEXT"], [0, 1]),
    "others between": (["id", "Caption", "w", "url"], [None, 1, None, 0]),
}


def write(path, layout, end="\n", last=True):
    header, order = LAYOUTS[layout]
    lines = ["\t".join(header)] if header else []
    lines += ["\t".join("7" if cell is None else row[cell] or "" for cell in order) for row in ROWS]
    path.write_bytes((end.join(lines) + end * last).encode())
    return path


@pytest.mark.parametrize(("end", "last"), [("\n", True), ("\n", False), ("\r\n", True)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_row_is_in_one_part(layout, end, last, tmp_path, monkeypatch):
    path = write(tmp_path / "a.tsv", layout, end, last)
    source = SOURCES["urls"]
    source.check(path)
    monkeypatch.setattr(tsv_files, "CHUNK", 97)
    assert source.count([str(path)], {}) == len(ROWS)
    limits = [0, 1, 17, 18, 40, 50]
    parts = [pools.url_list([path], first, last) for first, last in itertools.pairwise(limits)]
    together = pd.concat(parts)
    assert [(row.url, row.caption) for row in together.itertuples()] == ROWS
    assert together["aesthetic"].isna().all()


def test_lists_of_both_kinds_are_one(tmp_path):
    pd.DataFrame({"link": ["u"], "words": ["w"]}).to_parquet(tmp_path / "a.parquet")
    lines = ["link\twords", "v", "w\t\t", "y\tz\tmore"]
    (tmp_path / "b.tsv").write_text("\n".join(lines))
    columns = Pool(source="urls", path="x", columns={"url": "link", "caption": "words"}).columns
    files = SOURCES["urls"].files(tmp_path)
    assert SOURCES["urls"].count(files, columns) == 4
    table = pools.url_list(files, 0, 9, columns)
    assert list(table["url"]) == ["u", "v", "w", "y"] and list(table["caption"]) == ["w", None, None, "z"]


@pytest.mark.parametrize("line", ["a\tb", "http://x\thttp://y", "http://x\ta\tb", "", "name\tcaption"])
def test_lines_that_say_no_address_are_refused(line, tmp_path):
    (tmp_path / "a.tsv").write_text(f"{line}\n")
    with pytest.raises(BadInput, match=r"should name its columns in the first line.* its first line is"):
        tsv_files.count(tmp_path / "a.tsv", spellings({}))


def test_columns_are_named_where_there_are_some():
    with pytest.raises(ValueError, match="source: folder has no `columns` to name; huggingface and urls have"):
        Pool(source="folder", path="x", columns={"caption": "title"})
