"""Files appear whole or not at all; image tables find the bytes they promise."""

import tarfile

import pytest
from PIL import Image

from augbench import images
from augbench.core import files, seeds


def test_a_file_that_fails_midway_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.whole(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("one", "two"):
        with files.whole(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["two"]


def test_two_writers_at_once_are_harmless(tmp_path):
    path = tmp_path / "a.txt"
    with files.whole(path) as first, files.whole(path) as second:
        first.write_text("same")
        second.write_text("same")
    assert path.read_text() == "same"


def test_seeds_are_fixed_forever():
    # A changed derivation would change every published result.
    assert seeds.derive(1, "clip_prompts", "base", "three", 17, 0) == 5527441733231982757  # of sha256sum
    assert seeds.derive("ab", "c") != seeds.derive("a", "bc")


def test_shard_offsets_point_at_the_members(tmp_path):
    path = tmp_path / "shard.tar"
    content = {f"{i:03d}": bytes([i]) * (500 * i + 1) for i in range(5)}
    with images.ShardWriter(path) as shard:
        where = {
            key: shard.add(key, {"txt": "a caption", "png": data, "json": {"i": 1}}, image="png")
            for key, data in content.items()
        }
    raw = path.read_bytes()
    for key, (offset, length) in where.items():
        assert raw[offset : offset + length] == content[key]
    with tarfile.open(path) as tar:
        assert tar.extractfile("003.png").read() == content["003"]
    assert {key: sample["png"] for key, sample in images.read_shard(path)} == content


def test_a_shard_depends_on_its_members_alone(tmp_path):
    for name in ("a", "b"):
        with images.ShardWriter(tmp_path / name) as shard:
            shard.add("k", {"png": b"1"}, image="png")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_table_round_trip_and_bytes(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "file.png")
    with images.ShardWriter(tmp_path / "shard.tar") as shard:
        offset, length = shard.add("x", {"png": (tmp_path / "file.png").read_bytes()}, image="png")
    rows = [
        {"image_id": "a", "class": "c", "path": str(tmp_path / "file.png")},
        {
            "image_id": "b",
            "class": "c",
            "path": str(tmp_path / "shard.tar"),
            "offset": offset,
            "length": length,
        },
    ]
    images.write(tmp_path / "t.parquet", images.table(rows))
    loaded = images.read(tmp_path / "t.parquet")
    first, second = (images.load_bytes(row) for row in loaded.itertuples())
    assert first == second == (tmp_path / "file.png").read_bytes()
    assert images.load(loaded.iloc[1]).getpixel((0, 0)) == (255, 0, 0)


def test_an_id_that_occurs_twice_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'a' occurs twice"):
        images.write(tmp_path / "t.parquet", images.table([{"image_id": "a"}, {"image_id": "a"}]))


def test_damaged_images_are_named():
    with pytest.raises(ValueError, match="cannot read holiday.jpg"):
        images.decode(b"<html>", "holiday.jpg")


def test_what_not_every_reader_takes_is_encoded_again():
    import io

    from PIL import Image

    def encoded(picture, kind):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        return buffer.getvalue()

    plain = encoded(Image.new("RGB", (60, 40), "red"), "PNG")
    assert images.portable(plain, 64, 10_000) == ("png", plain)
    for data in (plain, encoded(Image.new("CMYK", (60, 40)), "JPEG"), encoded(Image.new("P", (60, 40)), "GIF")):
        extension, smaller = images.portable(data, 30, 10_000)
        assert (extension, images.decode(smaller).size) == ("jpg", (30, 20))
