"""Images that were made elsewhere, in each layout: which there are, of which class, and what is known of them."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from augbench import images
from augbench.core.files import BadInput
from augbench.study.layouts import LAYOUTS, layout_of


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def read(path) -> list[tuple]:
    """(name, label, facts) of each image; whose bytes are an image."""
    rows = list(layout_of(path).rows(Path(path)))
    for row in rows:
        assert images.decode(images.load_bytes(pd.Series(vars(row)))).size == (4, 4)
    return [(row.name, row.label, dict(row.facts)) for row in rows]


@pytest.mark.parametrize("root", ["set", "set/train"])
def test_class_folders(tmp_path, root):
    for name in ("b/1.png", "a/2.jpg", "a/deep/3.png", ".hidden/4.png"):
        picture(tmp_path / root / name)
    (tmp_path / root / "a" / "notes.txt").touch()
    assert read(tmp_path / "set") == [("a/2.jpg", "a", {}), ("a/deep/3.png", "a", {}), ("b/1.png", "b", {})]


def test_a_list_with_all_that_may_be_known(tmp_path):
    for name in ("x/1.png", "2.png"):
        picture(tmp_path / name)
    (tmp_path / "list.csv").write_text(
        "file,label,Prompt,Seed,Source Image,model,License,more\nx/1.png,a,a cat,7,c.jpg,SDXL,CC0,?\n./2.png,b,,,,,,\n"
    )
    facts = {"prompt": "a cat", "seed": "7", "source": "c.jpg", "model": "SDXL", "licence": "CC0"}
    assert read(tmp_path / "list.csv") == [("x/1.png", "a", facts), ("2.png", "b", {})]
    pd.DataFrame({"path": ["x/1.png"], "class": ["a"], "seed": [7.0]}).to_parquet(tmp_path / "list.parquet")
    assert read(tmp_path / "list.parquet") == [("x/1.png", "a", {"seed": "7"})]


@pytest.mark.parametrize("root", ["set", "set/train"])
def test_an_imagefolder_with_metadata(tmp_path, root):
    picture(tmp_path / root / "a" / "1.png")
    picture(tmp_path / root / "2.png")
    lines = [{"file_name": "a/1.png", "text": "a cat"}, {"file_name": "2.png", "label": "b", "text": None}]
    (tmp_path / root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert read(tmp_path / "set") == [("a/1.png", "a", {"prompt": "a cat"}), ("2.png", "b", {})]
    (tmp_path / root / "metadata.jsonl").unlink()
    (tmp_path / root / "metadata.csv").write_text("file_name,class,seed\n2.png,c,3\n")
    assert read(tmp_path / "set") == [("2.png", "c", {"seed": "3"})]


def shard(path: Path, *samples: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with images.ShardWriter(path) as writer:
        for number, members in enumerate(samples):
            data = images.encode_png(Image.new("RGB", (4, 4)))
            writer.add(f"{number:03d}", {"png": data, **members}, image="png")
    return path


def test_shards(tmp_path):
    facts = {"class": "b", "seed": 3, "license": "CC0"}
    shard(tmp_path / "0.tar", {"cls": "a", "txt": "a cat"}, {"cls": "7", "json": facts})
    shard(tmp_path / "1.tar", {"cls": "7"})
    wanted = [("0.tar/000", "a", {"cls": "a", "prompt": "a cat"})]
    wanted += [("0.tar/001", "b", {"cls": "7", "prompt": "", "seed": "3", "licence": "CC0"})]
    assert read(tmp_path) == [*wanted, ("1.tar/000", "7", {"cls": "7", "prompt": ""})]
    assert read(tmp_path / "0.tar") == wanted


FAULTS = {
    "nothing": (lambda at: None, "there is no folder or file "),
    "no class in a shard": (lambda at: shard(at / "0.tar", {"txt": "a cat"}), "sample 000 of .*0.tar has neither cls"),
    "odd json": (lambda at: shard(at / "0.tar", {"cls": "1", "json": "[1"}), "sample 000 of .* is no JSON object"),
    "damaged shard": (lambda at: picture(at / "a.png").rename(at / "a.tar"), "the shard .*a.tar cannot be read"),
    "odd metadata": (lambda at: picture(at / "metadata.jsonl.png").rename(at / "metadata.jsonl"), "metadata.jsonl"),
    "no class": (lambda at: lines(at, '{"file_name": "1.png"}'), "row 1 has no class, and its file lies in no folder"),
    "flat": (lambda at: picture(at / "1.png"), "the images of .*set lie in no class folders: sort them into CLASS/"),
    "no path": (lambda at: lines(at, '{"label": "a"}'), "row 1 has no path"),
    "no object": (lambda at: lines(at, '{"file_name": "a/1.png"}\n["a"]\n7'), "line 3 is no JSON object"),
}


def lines(folder, text):
    folder.mkdir()
    (folder / "metadata.jsonl").write_text(text)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(tmp_path, fault):
    prepare, sentence = FAULTS[fault]
    prepare(tmp_path / "set")
    with pytest.raises(BadInput, match=sentence):
        list(layout_of(tmp_path / "set").rows(tmp_path / "set"))


def test_the_files_of_a_set_are_all_that_is_read(tmp_path):
    picture(tmp_path / "folders" / "a" / "1.png")
    shard(tmp_path / "shards" / "0.tar", {"cls": "a"})
    picture(tmp_path / "meta" / "a" / "1.png")
    picture(tmp_path / "meta" / "a" / "2.png")  # which the table does not name
    (tmp_path / "meta" / "metadata.csv").write_text("file_name\na/1.png\n")
    (tmp_path / "list.csv").write_text("path,class\nmeta/a/2.png,a\n")
    wanted = {
        "folders": {"folders/a/1.png"},
        "shards": {"shards/0.tar"},
        "meta": {"meta/metadata.csv", "meta/a/1.png"},
        "list.csv": {"list.csv", "meta/a/2.png"},
    }
    for name, files in wanted.items():
        path = tmp_path / name
        assert {str(file.relative_to(tmp_path)) for file in layout_of(path).files(path)} == files
    assert {layout_of(tmp_path / name).name for name in wanted} == set(LAYOUTS)
