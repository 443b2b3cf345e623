"""Exports: readers of other software get the same bytes and the right labels, and no name leads out of the folder."""

import hashlib
import io
import json
from pathlib import Path

import pandas as pd
import pytest
import webdataset
import yaml
from PIL import Image
from torchvision.datasets import ImageFolder

from augbench import images
from augbench.dataset.export import EXTENSIONS, export, folder_names

GIFS = {(30 * number, 99, 0) for number in (1, 3, 5, 7)}  # colours of the images that are GIF
KEYS = ["a/b", "..", "../../evil", "A/B", "größe 猫", ".hidden", "CON:", "cat"]
ABOUT = {"study": "mine", "method": "retrieval", "title": "Retrieval: [x](y)", "ratio": "1"}
CLASSES = [{"class": key, "lemmas": f"name, of {key}", "train": 2} for key in KEYS]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Two real files of each class, of several formats, and one added image of each in a shard."""
    folder = tmp_path_factory.mktemp("target")
    real, made = [], []
    with images.ShardWriter(folder / "shard.tar") as shard:
        for number, key in enumerate(KEYS):
            for i, kind in enumerate(["JPEG", ["PNG", "GIF"][number % 2]]):
                # Disguised: what the name says is not what the bytes are.
                path = folder / f"{number}-{i}.jpg"
                Image.new("RGB", (9, 7), (30 * number, 99 * i, 0)).save(path, kind)
                real.append({"image_id": f"{number}-{i}", "class": key, "path": str(path)})
            data = images.encode_png(Image.new("RGB", (4, 4), (0, 0, 30 * number)))
            offset, length = shard.add(f"{number}", {"png": data}, image="png")
            place = {"path": str(folder / "shard.tar"), "offset": offset, "length": length}
            origin = {"prompt": f"<b>{key}", "seed": 2**62, "cluster": number, "start_image": f"{number}-0"}
            made.append({"image_id": f"m/{key}", "class": key, **origin, **place})
    return images.table(real), images.table([*made, made[0] | {"image_id": "other", "class": "unknown"}])


def expected(tables):
    """(class, digest) of each image that belongs in an export."""
    rows = [row for table in tables for row in table[table["class"].isin(KEYS)].to_dict("records")]
    return sorted((row["class"], digest(images.load_bytes(pd.Series(row)))) for row in rows)


def digest(data):
    """Of the bytes; of an image that was a GIF, which readers do not take, of its pixels."""
    with Image.open(io.BytesIO(data)) as opened:
        colour = images.decode(data).getpixel((0, 0))
        was_gif = opened.size == (9, 7) and opened.format != "JPEG" and colour in GIFS
    return hashlib.sha256(images.decode(data).tobytes() if was_gif else data).hexdigest()


def test_an_image_folder_is_read_by_torchvision(tables, tmp_path):
    export("folder", *tables, CLASSES, tmp_path / "out", ABOUT)
    read = ImageFolder(tmp_path / "out" / "train")
    names = pd.read_csv(tmp_path / "out" / "classes.csv", keep_default_na=False).set_index("folder")
    assert [names.loc[name, "label"] for name in read.classes] == list(range(len(KEYS)))
    of = [names.loc[name, "class"] for name in read.classes]
    assert sorted((of[label], digest(Path(path).read_bytes())) for path, label in read.samples) == expected(tables)
    assert len(read) == 3 * len(KEYS)
    read[0]


def test_shards_are_read_by_webdataset(tables, tmp_path, monkeypatch):
    monkeypatch.setattr("augbench.dataset.export.PER_SHARD", 10)
    export("webdataset", *tables, CLASSES, tmp_path / "out", ABOUT)
    shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    assert len(shards) == 3
    names = pd.read_csv(tmp_path / "out" / "classes.csv", keep_default_na=False).set_index("label")
    found = []
    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        data = next(sample[kind] for kind in EXTENSIONS.values() if kind in sample)
        key = names.loc[int(sample["cls"]), "class"]
        assert json.loads(sample["json"])["class"] == key
        found.append((key, digest(data)))
    assert found != sorted(found)  # shuffled
    assert sorted(found) == expected(tables)


def test_an_imagefolder_has_metadata_and_a_card(tables, tmp_path):
    export("huggingface", *tables, CLASSES, tmp_path / "out", ABOUT)
    train = tmp_path / "out" / "train"
    lines = [json.loads(line) for line in (train / "metadata.jsonl").read_text().splitlines()]
    assert sorted((line["class"], digest((train / line["file_name"]).read_bytes())) for line in lines) == expected(
        tables
    )
    assert len({tuple(line) for line in lines}) == 1
    assert {line["file_name"] for line in lines} == {
        str(path.relative_to(train)) for path in train.rglob("*") if path.is_file() and path.name != "metadata.jsonl"
    }
    added = [line for line in lines if line["origin"] == "added"]
    assert {(line["prompt"], line["seed"], line["cluster"], line["start_image"]) for line in added} == {
        (f"<b>{key}", 2**62, number, f"{number}-0") for number, key in enumerate(KEYS)
    }
    assert {line["cluster"] for line in lines if line["origin"] == "real"} == {None}
    head = (tmp_path / "out" / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(head)["pretty_name"] == "mine, augmented by Retrieval: [x](y)"
    assert "16 real and 8 added training images of 8 classes" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("form", ["folder", "webdataset", "huggingface"])
def test_sources_and_licences_of_all_images_stand_beside_them(tables, tmp_path, form):
    real, added = tables
    added = added.assign(url="http://x/y", licence="CC0", sha256=[f"{i:064x}" for i in range(len(added))])
    export(form, real, added, CLASSES, tmp_path / "out", ABOUT)
    sources = pd.read_csv(tmp_path / "out" / "sources.csv", keep_default_na=False)
    assert list(sources) == ["file", "class", "origin", "method", "url", "sha256", "model", "licence"]
    assert len(sources) == sources["file"].nunique() == 3 * len(KEYS)
    web = sources[sources["origin"] == "added"]
    assert set(web["url"]) == {"http://x/y"} and set(web["licence"]) == {"CC0"}
    by_class = added.set_index("class")["sha256"]
    assert all(row.sha256 == by_class[row._2] for row in web.itertuples())
    assert set(sources.loc[sources["origin"] == "real", "licence"]) == {""}
    for file in sources["file"]:
        place = tmp_path / "out" / file
        if form == "webdataset":
            assert place.name in dict(images.member_places(place.parent))
        else:
            assert place.is_file()


def test_the_card_names_the_models_that_made_images_and_their_licences(tables, tmp_path):
    train, added = tables
    added = added.assign(model="owner/sdxl@0123", licence="openrail++")
    added.loc[0, ["model", "licence"]] = ["local[x](y)", None]
    export("folder", train, added, CLASSES, tmp_path / "plain", ABOUT)
    export("huggingface", train, added, CLASSES, tmp_path / "out", ABOUT)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "made them: local_x_(y) (licence unknown), owner/sdxl@0123 (licence: openrail++)." in card


def test_the_card_names_the_weights_of_a_classifier_that_chose_among_images(tables, tmp_path):
    weights = {"name": "timm/x.a1_in1k", "revision": "0123", "sha256": "ab" * 32, "licence": "[mit](y)"}
    (tmp_path / "metrics.json").write_text(json.dumps({"accuracy": 90.0, "weights": weights}))
    export("huggingface", *tables, CLASSES, tmp_path / "out", ABOUT, tmp_path / "metrics.json")
    card = (tmp_path / "out" / "README.md").read_text()
    known = f"the weights timm/x.a1_in1k (revision: 0123, SHA-256: {'ab' * 32}, licence: _mit_(y))."
    assert card.endswith(f"was decided with the help of a classifier that began with {known}\n")
    weights |= {"revision": None, "licence": None}
    (tmp_path / "metrics.json").write_text(json.dumps({"weights": weights}))
    export("huggingface", *tables, CLASSES, tmp_path / "local", ABOUT, tmp_path / "metrics.json")
    assert f"(SHA-256: {'ab' * 32}, licence: unknown)" in (tmp_path / "local" / "README.md").read_text()


def test_no_name_leads_out_of_the_folder_and_none_is_like_another(tmp_path):
    names = folder_names([*KEYS, "x" * 300, "猫" * 300, ""])
    assert len({name.casefold() for name in names.values()}) == len(KEYS) + 3
    for name in names.values():
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
        assert not name.startswith(".")
        (tmp_path / name).mkdir()
    assert names["größe 猫"] == "größe 猫"
    assert names["cat"] == "cat"


def test_an_export_is_whole_or_not_there(tables, tmp_path):
    broken = tables[0].copy()
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    broken.loc[3, "path"] = str(tmp_path / "bad.jpg")
    with pytest.raises(ValueError, match="cannot read 1-1"):
        export("folder", broken, tables[1], CLASSES, tmp_path / "exports" / "out", ABOUT)
    assert not list((tmp_path / "exports").iterdir())
