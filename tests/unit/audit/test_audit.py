"""The audit against brute force over imagehash's own objects, and against planted copies."""

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from augbench import images
from augbench.audit import duplicates as module
from augbench.audit import hashes as hash_files
from augbench.audit.duplicates import Set, alike, audit, audit_files, pairs
from augbench.audit.hashes import hashes
from augbench.core.files import read_json


def picture(seed, side=96):
    """A smooth random RGB picture, as photographs are to a hash of low frequencies."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.BICUBIC)


def save(folder, name, image, key="cat"):
    folder.mkdir(exist_ok=True)
    image.save(folder / f"{name}.png")
    return {"image_id": name, "class": key, "path": str(folder / f"{name}.png")}


def seen(table, vectors=None):
    return Set(table, hashes(table), vectors)


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
    sets = {"test": seen(references), "validation": seen(other), "empty": seen(references.iloc[:0])}
    summary = audit(seen(added), sets, tmp_path / "a")
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
    }


def test_each_ratio_has_its_own_counts_and_the_main_one_its_pairs(planted, tmp_path):
    """Table 1 adds the blurred copy; ten times as many images bring the JPEG and the other blurred copy with them."""
    added, references = planted
    summary = audit(seen(added), {"test": seen(references)}, tmp_path, ratios={1.0: range(2), 10.0: range(5)})
    assert list(pd.read_parquet(tmp_path / "candidates.parquet")["added_id"]) == ["blurred"]
    assert (summary["added"], summary["references"]["test"]["pairs"]) == (2, 1)
    assert summary["references"]["test"]["share"] == 1 / 8
    (further,) = summary["further"]
    assert (further["ratio"], further["added"], further["references"]["test"]["pairs"]) == (10.0, 5, 3)
    assert further["references"]["test"]["share"] == 2 / 8


def test_a_methods_audit_reads_its_sets_ratio_by_ratio(planted, tmp_path):
    """As above, from files: two runs of the main ratio add the same images, which count once."""
    added, references = planted
    for name, table in {"main": added.iloc[:2], "further": added, "test": references}.items():
        images.write(tmp_path / f"{name}.parquet", table)
    for name, table in {"added": added, "test": references}.items():
        hash_files.write(tmp_path / f"{name}-hashes.parquet", table, hashes(table))
    main, further, test = (tmp_path / f"{name}.parquet" for name in ("main", "further", "test"))
    audit_files(
        tmp_path / "out",
        ["test"],
        [1.0, 10.0],
        None,
        1,
        added=[main, main, further, further],
        added_hashes=tmp_path / "added-hashes.parquet",
        added_vectors=[],
        references=[test],
        hashes=[tmp_path / "test-hashes.parquet"],
        vectors=[],
    )
    wanted = audit(seen(added), {"test": seen(references)}, tmp_path, ratios={1.0: range(2), 10.0: range(5)})
    assert read_json(tmp_path / "out" / "summary.json") == wanted
    for name in ("candidates.parquet", "summary.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_no_candidates_is_a_table_too(planted, tmp_path):
    added, references = planted
    audit(seen(added), {"test": seen(references)}, tmp_path / "some")
    audit(seen(added.iloc[:1]), {"test": seen(references)}, tmp_path / "none")
    audit(seen(added), {}, tmp_path / "nothing")
    some = pd.read_parquet(tmp_path / "some" / "candidates.parquet")
    for name in ("none", "nothing"):
        table = pd.read_parquet(tmp_path / name / "candidates.parquet")
        assert table.empty
        assert list(table.columns) == list(some.columns)


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_method_that_adds_no_images_has_no_candidates_with_a_second_detector(planted, tmp_path):
    """Nothing was embedded of it: its set has no vectors."""
    added, references = planted
    vectors = np.eye(len(references), 16, dtype=np.float32)
    summary = audit(seen(added.iloc[:0]), {"test": seen(references, vectors)}, tmp_path / "out", threshold=0.9)
    assert summary["references"]["test"]["pairs"] == 0
    assert pd.read_parquet(tmp_path / "out" / "candidates.parquet").empty


def test_alike_is_every_pair_of_a_loop(monkeypatch):
    random = np.random.default_rng(0)
    a, b = unit(random.standard_normal((50, 3))), unit(random.standard_normal((40, 3)))
    expected = [(i, j) for i in range(50) for j in range(40) if float(np.dot(a[i], b[j])) >= 0.9]
    assert 20 < len(expected) < 500
    for at_a_time in (1, 100, 10**6):
        monkeypatch.setattr(module, "SIMILARITIES", at_a_time)
        i, j = alike(a, b, 0.9)
        assert list(zip(i, j, strict=True)) == expected


def test_two_detectors_and_their_agreement(planted, tmp_path):
    """The embedding sees the mirrored copy, which the hash does not, and one of the blurred ones; not the JPEG."""
    added, references = planted
    theirs = np.eye(9, dtype=np.float32)[:8]
    mine = np.eye(9, dtype=np.float32)[[8, 5, 8, 3, 8]]
    mine[3] = unit([0.96 * np.eye(9)[3] + 0.28 * np.eye(9)[8]])
    summary = audit(seen(added, mine), {"test": seen(references, theirs)}, tmp_path, threshold=0.9)
    found = pd.read_parquet(tmp_path / "candidates.parquet").set_index(["added_id", "reference_id"])
    assert found["found_by"].to_dict() == {
        ("blurred", "r5"): "both",
        ("blurred-again", "r5"): "hash",
        ("jpeg", "r2"): "hash",
        ("mirrored", "r3"): "embedding",
    }
    assert found.loc[("mirrored", "r3"), "similarity"] == pytest.approx(0.96)
    assert found.loc[("jpeg", "r2"), "similarity"] == 0
    distance = imagehash.phash(images.load(added.iloc[3])) - imagehash.phash(images.load(references.iloc[3]))
    assert found.loc[("mirrored", "r3"), "distance"] == distance
    assert found["distance"].is_monotonic_increasing
    assert summary["references"]["test"]["agreement"] == {
        "hash": 3, "embedding": 2, "both": 1, "both_of_either": 0.25,
    }  # fmt: skip
