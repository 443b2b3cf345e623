"""Pool sources by their names: the registry is the only place that knows them."""

import pandas as pd
import pytest

from augbench.study.sections.retrieval import Pool
from augbench.study.sources import SOURCES

PATHS = {"folder": "x", "shards": "x", "urls": "x", "index": "x"}


def test_a_pool_holds_its_source_and_dumps_its_name():
    pool = Pool(source="shards", path="x")
    assert pool.source is SOURCES["shards"]
    assert Pool(**pool.model_dump()) == pool
    with pytest.raises(ValueError, match=r"there is no source 'shard', did you mean 'shards'\?"):
        Pool(source="shard", path="x")


def test_a_source_names_the_keys_that_it_needs():
    for name in PATHS:
        with pytest.raises(ValueError, match=f"source: {name} needs a path, e.g. `path: data/laion`"):
            Pool(source=name)
    with pytest.raises(ValueError, match="source: service needs url and index, e.g. `url: http://localhost:1234"):
        Pool(source="service", url="http://x")
    Pool(source="digits")


def test_what_a_source_takes_and_what_it_leaves(tmp_path):
    for name in ("b.jpg", "a.jpg", "a.txt", "notes.md", "data.JSON", "x.tar", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    pd.DataFrame({"url": ["u", "v"], "TEXT": "t"}).to_parquet(tmp_path / "list.parquet")
    (tmp_path / "more").mkdir()
    folder, shards, urls = (SOURCES[name] for name in ("folder", "shards", "urls"))
    assert folder.files(tmp_path) == [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    assert dict(folder.left_out(tmp_path)) == {
        ".md": 1,
        ".JSON".lower(): 1,
        ".tar": 1,
        ".parquet": 1,
        "hidden or system files": 1,
    }
    assert shards.files(tmp_path) == [str(tmp_path / "x.tar")]
    assert shards.left_out(tmp_path)["folders"] == 1 and ".tar" not in shards.left_out(tmp_path)
    lists = urls.files(tmp_path)
    assert (urls.count(lists, {}), folder.count(folder.files(tmp_path), {})) == (2, 2)
    assert urls.columns(tmp_path) == ["url", "TEXT"]
    assert urls.left_out(lists[0]) == {}
    assert SOURCES["service"].files("nowhere") == [] and SOURCES["index"].left_out(tmp_path) == {}


def test_a_source_with_images_lies_here_or_is_made_here():
    """So that CLIP, the backbone and the index find shards of it."""
    for source in SOURCES.values():
        assert source.has_images == (source.is_local or source.is_built_in)
        assert not (source.is_packed and not source.is_local)
        assert not (source.brings_index and source.is_remote)
