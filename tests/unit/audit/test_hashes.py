"""Hashes against imagehash itself, bit for bit: JPEG and lossless, odd sizes and modes."""

import imagehash
import numpy as np
import pytest
from PIL import Image

from augbench import images
from augbench.audit import hashes


def phash(path):
    return imagehash.phash(Image.open(path))


def row(path):
    return {"image_id": path.name, "class": "", "path": str(path)}


SIZES = [(500, 375), (375, 500), (32, 32), (31, 33), (33, 31), (64, 64), (1, 1), (5, 900), (257, 129), (300, 300)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Photograph-like, noisy and flat pictures of many sizes in many formats."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    found = []
    for number, size in enumerate(SIZES):
        few = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
        noise = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        made = {"photo": few, "noise": noise, "flat": Image.new("RGB", size, (number, 9 * number, 99))}
        for kind, picture in made.items():
            for name, options in {
                "png": {}, "bmp": {}, "webp": {"lossless": True},
                "jpg": {"quality": 60}, "444.jpg": {"quality": 95, "subsampling": 0}, "p.jpg": {"progressive": True},
            }.items():  # fmt: skip
                found.append(folder / f"{number}-{kind}.{name}")
                picture.save(found[-1], **options)
            for mode in ("L", "P", "1"):
                found.append(folder / f"{number}-{kind}-{mode}.png")
                picture.convert(mode).save(found[-1])
            for mode in ("L", "CMYK"):
                found.append(folder / f"{number}-{kind}-{mode}.jpg")
                picture.convert(mode).save(found[-1], quality=80)
    return found


@pytest.mark.middle  # takes seconds
def test_hashes_are_imagehashs_bit_for_bit(pictures, monkeypatch):
    table = images.table(map(row, pictures))
    expected = [str(phash(path)) for path in pictures]
    assert len(set(expected)) > len(SIZES) * 2
    few = slice(None, None, 7)  # of every size, kind and format
    for rows, batch, threads in ((slice(None), 256, 2), (few, 256, 1), (few, 7, 3), (few, 1, 1)):
        monkeypatch.setattr(hashes, "BATCH", batch)
        found = hashes.hashes(table.iloc[rows], threads)
        assert found.dtype == np.uint64
        assert [f"{int(value):016x}" for value in found] == expected[rows]
    assert hashes.hashes(table.iloc[:0]).shape == (0,)


def test_what_is_hashed_is_the_image_that_every_stage_sees(tmp_path):
    """Turned upright, and on white where it is transparent, as the classifiers see it."""
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((90, 60))
    turned, clear = tmp_path / "turned.jpg", tmp_path / "clear.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(turned, exif=exif, quality=95)
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(clear)
    table = images.table([row(turned), row(clear)])
    expected = [str(imagehash.phash(images.load(each))) for each in table.itertuples()]
    assert [f"{int(value):016x}" for value in hashes.hashes(table)] == expected
    assert expected != [str(phash(turned)), str(phash(clear))]


def test_kept_hashes_are_found_by_their_image(tmp_path):
    table = images.table({"image_id": name, "class": "", "path": name} for name in "abc")
    values = np.array([1, 2**64 - 1, 2**63], np.uint64)
    hashes.write(tmp_path / "hashes.parquet", table, values)
    assert hashes.read(tmp_path / "hashes.parquet", table.iloc[[2, 1]]).tolist() == [2**63, 2**64 - 1]
    other = images.table([{"image_id": "d", "class": "", "path": "d"}])
    with pytest.raises(ValueError, match=r"hashes.parquet has no hash of d"):
        hashes.read(tmp_path / "hashes.parquet", other)


def test_unreadable_images_are_named(pictures, tmp_path):
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(pictures[3].read_bytes()[:-2000])
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("broken.png", "absent.png", "cut.jpg"):
        with pytest.raises(ValueError, match=name):
            hashes.hashes(images.table([row(pictures[0]), row(tmp_path / name)]))
