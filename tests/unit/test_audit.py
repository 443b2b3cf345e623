"""The audit against brute force over imagehash's own objects, and against planted copies."""

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from augbench import audit as module
from augbench import images
from augbench.audit import audit, hashes, pairs
from augbench.files import read_json


def picture(seed, side=96):
    """A smooth random RGB picture, as photographs are to a hash of low frequencies."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.BICUBIC)


def save(folder, name, image, key="cat"):
    folder.mkdir(exist_ok=True)
    image.save(folder / f"{name}.png")
    return {"image_id": name, "class": key, "path": str(folder / f"{name}.png")}


def brute_force(a, b, radius):
    found = [(x - y, i, j) for i, x in enumerate(a) for j, y in enumerate(b) if x - y < radius]
    return sorted(found)


def hash_objects(values):
    return [imagehash.hex_to_hash(f"{int(value):016x}") for value in values]


@pytest.fixture
def planted(tmp_path):
    """Eight references; added images: a recompressed, two blurred and a mirrored copy, and a stranger."""
    references = images.table(save(tmp_path / "ref", f"r{i}", picture(i), ["cat", "dog"][i % 2]) for i in range(8))
    blurred = picture(5).filter(ImageFilter.GaussianBlur(1))
    picture(2).save(tmp_path / "small.jpg", quality=60)
    added = images.table(
        [
            save(tmp_path / "add", "stranger", picture(100)),
            save(tmp_path / "add", "blurred", blurred),
            {"image_id": "jpeg", "class": "owl", "path": str(tmp_path / "small.jpg")},
            save(tmp_path / "add", "mirrored", picture(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
            save(tmp_path / "add", "blurred-again", blurred.resize((64, 64))),
        ]
    )
    return added, references


def test_hashes_are_imagehashs(planted):
    _, references = planted
    found = hashes(references)
    assert found.dtype == np.uint64
    expected = [imagehash.phash(images.load(row)) for row in references.itertuples()]
    assert [f"{int(value):016x}" for value in found] == [str(value) for value in expected]
    assert hashes(references.iloc[:0]).shape == (0,)


def test_radius_is_strict():
    base = np.array([0x0123456789ABCDEF], np.uint64)
    flip = lambda bits: base ^ np.uint64(2**bits - 1)  # noqa: E731
    others = np.concatenate([flip(bits) for bits in (9, 10, 0, 11, 64 - 1, 8)])
    i, j, distance = pairs(base, others, 10)
    assert list(zip(distance, i, j, strict=True)) == [(0, 0, 2), (8, 0, 5), (9, 0, 0)]


def test_pairs_are_brute_forces_across_blocks(monkeypatch):
    random = np.random.default_rng(4)
    words = random.integers(0, 2**63, 6, dtype=np.uint64)

    def near(count):  # words with each bit flipped one time in eight: distances lie around the radius
        flips = np.bitwise_and.reduce(random.integers(0, 2**64, (3, count), dtype=np.uint64))
        return random.choice(words, count) ^ flips

    a, b = near(90), near(70)
    expected = brute_force(hash_objects(a), hash_objects(b), 10)
    assert {7, 8, 9} <= {distance for distance, _, _ in expected}
    for block in (7, 4096):
        monkeypatch.setattr(module, "BLOCK", block)
        i, j, distance = pairs(a, b, 10)
        assert list(zip(distance, i, j, strict=True)) == expected
    assert all(len(part) == 0 for part in pairs(a, b[:0], 10))
    assert all(len(part) == 0 for part in pairs(a[:0], b, 10))


def test_planted_copies_are_found_and_counted(planted, tmp_path):
    added, references = planted
    references.loc[0, ["offset", "length"]] = [0, (tmp_path / "ref" / "r0.png").stat().st_size]
    other = references.iloc[[7, 2]]
    summary = audit(added, {"test": references, "validation": other, "empty": references.iloc[:0]}, tmp_path / "a")
    found = pd.read_parquet(tmp_path / "a" / "candidates.parquet")
    assert {tuple(pair) for pair in found[["added_id", "reference_set", "reference_id"]].to_numpy()} == {
        ("blurred", "test", "r5"),
        ("blurred-again", "test", "r5"),
        ("jpeg", "test", "r2"),
        ("jpeg", "validation", "r2"),
    }
    row = found[(found["added_id"] == "jpeg") & (found["reference_set"] == "test")].iloc[0]
    assert (row["class"], row["reference_class"]) == ("owl", "cat")
    assert row["added_path"].endswith("small.jpg")
    assert row["reference_path"].endswith("r2.png")
    assert pd.isna(row["reference_offset"])
    assert row["distance"] == imagehash.phash(Image.open(row["added_path"])) - imagehash.phash(
        Image.open(row["reference_path"])
    )
    assert summary == read_json(tmp_path / "a" / "summary.json")
    assert (summary["added"], summary["radius"]) == (5, 10)
    assert summary["references"] == {
        "test": {
            "images": 8,
            "pairs": 3,
            "added_images_with_candidate": 3,
            "reference_images_with_candidate": 2,
            "share": 0.25,
        },
        "validation": {
            "images": 2,
            "pairs": 1,
            "added_images_with_candidate": 1,
            "reference_images_with_candidate": 1,
            "share": 0.5,
        },
        "empty": {
            "images": 0,
            "pairs": 0,
            "added_images_with_candidate": 0,
            "reference_images_with_candidate": 0,
            "share": 0.0,
        },
    }


def test_no_candidates_is_a_table_too(planted, tmp_path):
    added, references = planted
    audit(added, {"test": references}, tmp_path / "some")
    audit(added.iloc[:1], {"test": references}, tmp_path / "none")
    audit(added, {}, tmp_path / "nothing")
    some = pd.read_parquet(tmp_path / "some" / "candidates.parquet")
    for name in ("none", "nothing"):
        table = pd.read_parquet(tmp_path / name / "candidates.parquet")
        assert table.empty
        assert list(table.columns) == list(some.columns)


def test_unreadable_images_are_named(planted, tmp_path):
    added, references = planted
    (tmp_path / "broken.png").write_bytes(b"no image")
    for path in ("broken.png", "absent.png"):
        row = {"image_id": path, "class": "cat", "path": str(tmp_path / path)}
        with pytest.raises(ValueError, match=path):
            audit(pd.concat([added, images.table([row])]), {"test": references}, tmp_path / "a")
    assert not (tmp_path / "a").exists()
