"""Downloads are judged while others come, in the same company however they come, and not again after a kill."""

import hashlib
import itertools
import threading

import pandas as pd
import pytest
from PIL import Image

from augbench.core import processes
from augbench.retrieval import download, inspection
from augbench.retrieval.inspection import Inspection
from augbench.study.config import Retrieval

SETTINGS = Retrieval(min_image_size=4)


class Checker:
    """Refuses dark pictures, and notes how many it sees together."""

    def __init__(self, breaks_after=None):
        self.seen, self.breaks_after = [], breaks_after

    def unsafe(self, pictures):
        if self.breaks_after is not None and len(self.seen) >= self.breaks_after:
            raise KeyboardInterrupt
        self.seen.append(len(pictures))
        return [picture.getpixel((0, 0))[0] < 50 for picture in pictures]


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Ten downloads, of which the second is none; pictures are judged two at a time, and kept four at a time."""
    monkeypatch.setattr(inspection, "AT_A_TIME", 2)
    monkeypatch.setattr(inspection, "KEPT", 4)
    rows = []
    for i in range(10):
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(path := tmp_path / f"{i}.png")
        data = hashlib.sha256(path.read_bytes()).hexdigest()
        fate = "dead" if i == 1 else "fetched"
        rows.append({"address": f"http://x/{i}", "fate": fate, "reason": "", "sha256": data, "path": str(path)})
    return pd.DataFrame(rows).assign(offset=pd.NA, length=pd.NA)


def judge(checker, tables, folder=None, fingerprint="one"):
    rows = Inspection(checker, SETTINGS, None, folder, fingerprint)(tables, 10, lambda *_: None)
    return [(row["address"][-1], row["fate"]) for row in rows]


def cut(table, *places):
    edges = [0, *places, len(table)]
    return [table.iloc[start:end] for start, end in itertools.pairwise(edges)]


def test_how_downloads_come_changes_nothing(downloads):
    whole = Checker()
    verdicts = judge(whole, [downloads])
    assert whole.seen == [1, 2, 2, 2, 2]
    assert [fate for _, fate in verdicts] == ["unsafe", "dead", "unsafe", *["good"] * 7]
    for places in ((1,), (3, 5), (4, 4, 8), range(1, 10)):
        pieces = Checker()
        assert judge(pieces, cut(downloads, *places)) == verdicts
        assert pieces.seen == whole.seen


def test_a_killed_job_judges_only_what_it_had_not(downloads, tmp_path):
    folder = tmp_path / "verdicts"
    with pytest.raises(KeyboardInterrupt):
        judge(Checker(breaks_after=3), [downloads], folder)
    again, whole = Checker(), Checker()
    assert judge(again, [downloads], folder) == judge(whole, [downloads])
    assert again.seen == whole.seen[2:]
    assert judge(other := Checker(), [downloads], folder, "another model") and other.seen == whole.seen
    changed = downloads.assign(sha256=["0" * 64, *downloads["sha256"][1:]])
    judge(one_changed := Checker(), [changed], folder)
    assert one_changed.seen == whole.seen[:2]  # those that are judged with it


def test_scores_are_kept_exactly(downloads, tmp_path):
    def score(pictures):
        return [picture.getpixel((0, 0))[0] / 30 for picture in pictures]

    def rows(score):
        found = Inspection(Checker(), SETTINGS, score, tmp_path / "verdicts")([downloads], 10, lambda *_: None)
        return [(row["fate"], row["reason"], row.get("aesthetic")) for row in found]

    assert rows(score) == rows(lambda pictures: pytest.fail("the scores are known"))


def test_the_next_list_is_downloaded_while_one_is_judged():
    """The second item can only be made while the first is used: else both would wait for ever."""
    used, made = threading.Event(), threading.Event()

    def items():
        yield 1
        made.set()
        assert used.wait(10)
        yield 2

    seen = []
    for item in processes.ahead(items()):
        if item == 1:
            assert made.wait(10)
            used.set()
        seen.append(item)
    assert seen == [1, 2]


def test_an_error_of_what_is_made_ahead_comes_after_what_was_made():
    def items():
        yield 1
        raise ConnectionError("the network is down")

    seen = []
    with pytest.raises(ConnectionError, match="the network is down"):
        seen.extend(processes.ahead(items()))
    assert list(processes.ahead(iter(()))) == []


def test_what_is_known_comes_before_a_download_begins(tmp_path, monkeypatch):
    """Lists of two; of eight addresses two are known and one is refused."""
    monkeypatch.setattr(download, "LIST_SIZE", 2)
    lists = []

    def fetch_list(urls, folder, *_):
        lists.append(urls)
        rows = pd.DataFrame({"url": urls, "fate": "fetched", "reason": "", "path": "x", "sha256": "0"})
        rows = rows.assign(offset=pd.array([0] * len(urls), "Int64"), length=pd.array([1] * len(urls), "Int64"))
        folder.mkdir(parents=True)
        rows.to_parquet(folder / "fetched.parquet")
        return rows

    monkeypatch.setattr(download, "_fetch_list", fetch_list)
    urls = [f"http://x/{i}" for i in range(7)] + ["ftp://x/7"]
    list(download.fetch_in_turn([urls[0], urls[3]], tmp_path, SETTINGS))
    assert lists.pop() == [urls[0], urls[3]]
    turns = []
    for table in download.fetch_in_turn(urls, tmp_path, SETTINGS):
        turns.append((list(table["url"]), len(lists)))
    assert turns == [(urls[:1], 0), (urls[1:4], 1), (urls[4:6], 2), (urls[6:], 3)]
    whole = download.fetch(urls, tmp_path, SETTINGS)
    assert list(whole["url"]) == urls and list(whole["fate"]) == ["fetched"] * 7 + ["refused"]
    assert list(download.fetch([], tmp_path, SETTINGS).columns) == download.COLUMNS
