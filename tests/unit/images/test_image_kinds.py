"""One decoder: every kind of image is what an image viewer shows, the same for hash, classifier, CLIP and pages."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from augbench import images
from augbench.audit import hashes
from augbench.classifier import crops
from augbench.core import files
from augbench.images import folders, pixels

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)
TRANSPARENT = GREY == 0  # the first pixel
MASK = np.where(np.indices(GREY.shape).sum(0) % 3 == 0, 0, 255).astype(np.uint8)


def encoded(array, kind="PNG", mode=None, **options):
    buffer = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def with_chunk(png, name, data):
    """A PNG with a further chunk before its pixels."""
    place = png.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return png[:place] + chunk + png[place:]


def rgb(grey):
    return np.repeat(grey[:, :, None], 3, axis=2)


def on_white(colour, alpha):
    share = alpha[:, :, None] / 255
    return np.round(colour * share + 255 * (1 - share)).astype(np.uint8)


PALETTE = Image.fromarray(GREY // 5)
PALETTE.putpalette([channel for i in range(256) for channel in (i, 255 - i, i // 2)])
PALETTED = np.stack([GREY // 5, 255 - GREY // 5, GREY // 10], axis=2)
RGBA = np.dstack([COLOUR, MASK])
DEEP = GREY.astype(np.uint16) * 257  # 16 bits: 255 * 257 is all of them
CMYK = np.dstack([GREY, 255 - GREY, GREY // 2, np.zeros_like(GREY)])

KINDS = {  # what it is -> bytes, the pixels that a viewer shows
    "grey": (encoded(GREY), rgb(GREY)),
    "colour": (encoded(COLOUR), COLOUR),
    "black and white": (encoded(GREY > 100), rgb(np.where(GREY > 100, 255, 0).astype(np.uint8))),
    "grey, one shade transparent": (encoded(GREY, transparency=0), rgb(np.where(TRANSPARENT, 255, GREY))),
    "colour, one transparent": (
        encoded(COLOUR, transparency=tuple(map(int, COLOUR[0, 0]))),
        np.where(TRANSPARENT[:, :, None], 255, COLOUR),
    ),
    "grey and alpha": (encoded(np.dstack([GREY, MASK])), on_white(rgb(GREY), MASK)),
    "colour and alpha": (encoded(RGBA), on_white(COLOUR, MASK)),
    "palette": (encoded(PALETTE), PALETTED),
    "palette, one transparent": (encoded(PALETTE, transparency=0), np.where(TRANSPARENT[:, :, None], 255, PALETTED)),
    "palette with alphas": (
        encoded(PALETTE, transparency=bytes([0, 0, 255])),
        np.where((GREY <= 5)[:, :, None], 255, PALETTED),
    ),
    "GIF, transparent": (encoded(PALETTE, "GIF", transparency=0), np.where(TRANSPARENT[:, :, None], 255, PALETTED)),
    "16 bits": (encoded(DEEP), rgb(GREY)),
    "16 bits, one shade transparent": (
        with_chunk(encoded(DEEP), b"tRNS", struct.pack(">H", 0)),
        rgb(np.where(TRANSPARENT, 255, GREY)),
    ),
    "16 bits TIFF": (encoded(DEEP, "TIFF"), rgb(GREY)),
    "16 bits, most significant byte first": (encoded(DEEP.astype(">u2"), "TIFF"), rgb(GREY)),
    "16 bits PGM": (b"P5 8 6 65535 " + DEEP.astype(">u2").tobytes(), rgb(GREY)),
    "32 bits": (encoded(DEEP.astype(np.int32), "TIFF"), rgb(GREY)),
    "32 bits, all of them": (encoded(GREY.astype(np.int32) * 8_000_000, "TIFF"), rgb(np.round(GREY / 235 * 255))),
    "floating point": (encoded(GREY.astype(np.float32) / 255, "TIFF"), rgb(GREY)),
    "floating point, up to 235": (encoded(GREY.astype(np.float32), "TIFF"), rgb(np.round(GREY / 235 * 255))),
    "floating point with none": (
        encoded(np.where(TRANSPARENT, np.nan, GREY / 255).astype(np.float32), "TIFF"),
        rgb(GREY),
    ),
    "floating point, infinite": (
        encoded(np.where(TRANSPARENT, np.inf, GREY / 255).astype(np.float32), "TIFF"),
        rgb(GREY),
    ),
    "CMYK": (encoded(Image.fromarray(CMYK, "CMYK"), "TIFF"), 255 - CMYK[:, :, :3]),
    "TIFF with alpha": (encoded(RGBA, "TIFF"), on_white(COLOUR, MASK)),
    "WebP with alpha": (encoded(RGBA, "WEBP", lossless=True, exact=True), on_white(COLOUR, MASK)),
    "BMP": (encoded(COLOUR, "BMP"), COLOUR),
    "PPM": (encoded(COLOUR, "PPM"), COLOUR),
    "JPEG 2000": (encoded(COLOUR, "JPEG2000", irreversible=False), COLOUR),
    "several frames": (
        encoded(COLOUR, "PNG", save_all=True, append_images=[Image.fromarray(255 - COLOUR)]),
        COLOUR,
    ),
    "several pages": (encoded(COLOUR, "TIFF", save_all=True, append_images=[Image.new("RGB", (4, 4))]), COLOUR),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_what_a_viewer_shows(kind):
    data, expected = KINDS[kind]
    assert np.abs(np.asarray(images.decode(data)).astype(int) - expected.astype(int)).max() <= 1


def test_lab_colours_are_those_of_srgb():
    lab = ImageCms.profileToProfile(
        Image.fromarray(COLOUR), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    difference = np.asarray(images.decode(encoded(lab, "TIFF"))).astype(int) - COLOUR
    assert np.abs(difference).mean() < 6  # 8 bits of LAB are coarse, and some colours lie outside


def test_avif_and_heif_are_decoded():
    wide = Image.fromarray(np.repeat(np.repeat(COLOUR, 8, 0), 8, 1))
    kinds = ["AVIF"] + ["HEIF"] * folders.reads_heif()
    pixels._pillow()
    for kind in kinds:
        assert np.abs(np.asarray(images.decode(encoded(wide, kind))).astype(int) - np.asarray(wide)).mean() < 12


@pytest.mark.parametrize("kind", KINDS)
def test_hash_classifier_and_clip_see_the_same_pixels(kind, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(KINDS[kind][0])
    row = images.table([{"image_id": "a", "path": str(path)}]).iloc[0]
    seen = images.load(row)
    grey = seen.convert("L").resize((hashes.SIDE, hashes.SIDE), Image.Resampling.LANCZOS)
    assert (hashes.shrunk(row) == np.asarray(grey)).all()
    assert crops.training_image(row, 8, (1.0, 1.0)).tobytes() == seen.tobytes()
    with Image.open(io.BytesIO(images.as_seen(path.read_bytes()))) as plain:  # as clip-retrieval does
        assert plain.convert("RGB").tobytes() == seen.tobytes()
    with Image.open(io.BytesIO(images.portable(path.read_bytes(), 512)[1])) as plain:
        assert plain.size == seen.size and images.is_plain(plain)


# --- orientation ----------------------------------------------------------------------------------------

TURNED = {  # what a viewer does with a stored image, by its EXIF orientation
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}  # fmt: skip


def exif(orientation, kind=3, more=b""):
    """EXIF with one entry, little endian: the orientation in a TIFF type (3: short, 8: signed short, 4, 9: long)."""
    value = struct.pack("<hh" if kind in (3, 8) else "<i", *((orientation, 0) if kind in (3, 8) else (orientation,)))
    entries = struct.pack("<HHI", 0x0112, kind, 1) + value + more
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1 + len(more) // 12) + entries + b"\0\0\0\0"


# A long (unsigned) that holds a negative number, as some cameras write: no number that could be written again.
SIGNED = struct.pack("<HHIi", 0x9204, 9, 1, -5) + struct.pack("<HHIi", 0x9C9B, 8, 1, -1)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("block", [exif, lambda o: exif(o, 8), lambda o: exif(o, 9), lambda o: exif(o, 3, SIGNED)])
def test_images_are_turned_upright(form, orientation, block):
    if form == "TIFF":
        tags = Image.Exif()
        tags[0x0112] = orientation
        data = encoded(COLOUR, "TIFF", exif=tags)
    else:
        data = encoded(COLOUR, form, exif=block(orientation), **({"lossless": True} if form == "WEBP" else {}))
    expected = TURNED[orientation](COLOUR)
    assert (np.asarray(images.decode(data)) == expected).all()
    with images.open_image(data) as source:
        assert source.size == expected.shape[1::-1]
        assert (np.asarray(source.decode()) == expected).all()
    if form != "TIFF":  # which Pillow itself turns
        assert images.is_plain(Image.open(io.BytesIO(data))) == (orientation == 1)


def test_a_turned_and_transparent_image():
    data = encoded(np.dstack([COLOUR, MASK]), exif=exif(6))
    assert (np.asarray(images.decode(data)) == np.rot90(on_white(COLOUR, MASK), -1)).all()
    grey = encoded(GREY, transparency=0, exif=exif(6))
    assert (np.asarray(images.decode(grey)) == np.rot90(rgb(np.where(TRANSPARENT, 255, GREY)), -1)).all()


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of the damage
@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(-9, 70000), st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_damaged_exif_never_makes_an_image_unreadable(noise, orientation, form):
    good = exif(max(-32768, min(32767, orientation)))
    for block in (b"Exif\0\0" + noise, good + noise, good[:14] + noise, b"Exif\0\0MM\0*" + noise):
        picture = images.decode(encoded(COLOUR, form, exif=block))
        assert sorted(picture.size) == [6, 8]


# --- what is none ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>", "Pillow does not know it as an image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer; fetch the file itself"),
        (encoded(COLOUR)[:60], "."),
        (b"\xff\xd8\xff\xe0" + bytes(50), "."),
    ],
)
def test_what_is_no_image_is_named_with_the_reason(data, reason):
    for read in (images.decode, images.grey, images.as_seen):
        with pytest.raises(files.BadInput, match=f"cannot read holiday.jpg: {reason}") as error:
            read(data, "holiday.jpg")
        assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore")
@settings(derandomize=True, max_examples=120, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_damaged_images_are_an_image_or_a_sentence(kind, data):
    whole = KINDS[kind][0]
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    for damaged in (cut, flipped):
        try:
            assert images.decode(damaged, "a", max_pixels=10_000).mode == "RGB"
        except files.BadInput as error:
            assert str(error).startswith("cannot read a: ") and "\n" not in str(error)
