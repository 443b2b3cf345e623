"""The one decoder: every stage sees an image as an image viewer shows it."""

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from augbench.core import files
from augbench.images import folders

# EXIF orientation -> the transposition that turns a stored image upright. Pillow's exif_transpose writes EXIF anew,
# which fails where a camera wrote odd numbers.
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
LYING = (5, 6, 7, 8)  # orientations of images that are stored on their side
JPEG_QUALITY = 95  # of images that are scaled down
KEPT_AS_THEY_CAME = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
SIGNED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")  # formats told by first bytes


class TooManyPixels(files.BadInput):
    """An image larger than is allowed, which is not decoded."""


@functools.cache
def _pillow():
    """Pillow's module Image, which knows of HEIF where pillow-heif is installed."""
    from PIL import Image

    if folders.reads_heif():
        import pillow_heif  # pyright: ignore[reportMissingImports] (an extra)

        pillow_heif.register_heif_opener()
    return Image


def is_image(path: str | Path) -> bool:
    """Whether a file begins as an image of a common format does, whatever its name."""
    image = _pillow()
    image.init()  # formats named below are known only then
    try:
        with image.open(path, formats=[name for name in SIGNED if name in image.OPEN]):
            return True
    except Exception:  # Pillow's plugins raise nearly anything
        return False


def size_of(file: str | Path | io.BytesIO) -> tuple[int, int] | None:
    """Width and height of the image in a file, as stored, from its head alone; None when it cannot be read."""
    try:
        with _pillow().open(file) as image:
            return image.size
    except Exception:
        return None


def decode(data: bytes, name: str = "image", max_pixels: int | None = None, at_least: tuple[int, int] | None = None):
    """Decode to an RGB ``PIL.Image`` as an image viewer shows it: the first frame, upright, on white where it is
    transparent. All stages see their images through this function.

    16 bits a channel are scaled to 8, floating point by its largest value (at least 1). A JPEG is decoded at a half,
    quarter or eighth of its size, which takes a fraction of the time, where it still has ``at_least`` so many pixels
    in width and height. Raises ValueError naming the image when that is impossible, or when it has more than
    ``max_pixels``, which is known before a pixel is decoded.
    """
    with _opened(data, name) as image:
        return _seen(image, max_pixels, at_least)


def _seen(image, max_pixels: int | None, at_least: tuple[int, int] | None = None):
    """:func:`decode` of an image that Pillow opened."""
    if max_pixels and image.width * image.height > max_pixels:
        raise TooManyPixels(f"too many pixels: {image.width} x {image.height}")
    return OpenedImage(image).decode(at_least)


class OpenedImage:
    """An image whose head was read: how large it is as a viewer shows it, before a pixel is decoded (but of a PNG,
    whose EXIF may stand behind its pixels).

    ``size`` is its width and height, ``is_backwards`` whether it is stored from right to left and from bottom to top.
    """

    def __init__(self, image):
        self._image, self._orientation = image, _orientation(image)
        self.size = image.size[::-1] if self._orientation in LYING else image.size
        self.is_backwards = self._orientation in (2, 3, 6, 7), self._orientation in (3, 4, 7, 8)

    def decode(self, at_least: tuple[int, int] | None = None):
        """The pixels, as :func:`decode` gives them; once."""
        if at_least:
            self._image.draft(None, at_least[::-1] if self._orientation in LYING else at_least)
        seen = _rgb(self._image)
        turn = TURNS.get(self._orientation)
        return seen.transpose(_pillow().Transpose[turn]) if turn else seen


@contextlib.contextmanager
def open_image(data: bytes, name: str = "image") -> Iterator[OpenedImage]:
    """An image whose size decides how it is decoded. Raises ValueError like :func:`decode`, in the block as well."""
    with _opened(data, name) as image:
        yield OpenedImage(image)


def grey(data: bytes, name: str = "image"):
    """:func:`decode`, in grey (``L``); without an RGB image in between where it would be the same."""
    with _opened(data, name) as image:
        if is_plain(image):
            return image.convert("L")
    return decode(data, name).convert("L")


def is_plain(image) -> bool:
    """Whether every reader sees what :func:`decode` gives: 8 bits in RGB or grey, upright, one frame, not transparent.

    image : as Pillow opened it
    """
    return (
        image.mode in ("RGB", "L")
        and "transparency" not in image.info
        and getattr(image, "n_frames", 1) == 1
        and _orientation(image) not in TURNS
    )


@contextlib.contextmanager
def _opened(data: bytes, name: str):
    """The image that Pillow opens. Raises BadInput naming it, also for what its decoding in the block raises."""
    image = _pillow()
    try:
        with image.open(io.BytesIO(data)) as opened:
            yield opened
    except TooManyPixels as error:
        raise TooManyPixels(f"cannot read {files.printable(name)}: {error}") from error
    except image.DecompressionBombError as error:  # Pillow's own limit, which is higher
        raise TooManyPixels(f"cannot read {files.printable(name)}: too many pixels: {error}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged input
        raise files.BadInput(f"cannot read {files.printable(name)}: {_reason(data, error)}") from error


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "it is empty"
    if data.startswith(files.POINTER):
        return "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"
    words = " ".join(str(error).split())
    return "Pillow does not know it as an image" if "BytesIO object" in words else words or type(error).__name__


def _orientation(image) -> int:
    """The EXIF orientation; 1, upright, where EXIF is damaged or says nothing that makes sense.

    Raises what Pillow raises for a PNG whose pixels are damaged: its EXIF may stand behind them.
    """
    from PIL import ExifTags

    if image.format == "TIFF":  # Pillow turns it, and says the size that it then has
        return 1
    if image.format == "PNG":
        image.load()
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(value) if value in TURNS else 1
    except Exception:  # it raises nearly anything
        return 1


def _rgb(image):
    """An opened image of any mode as RGB, on white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.mode == "LAB":
        image = _from_lab(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        image = _pillow().alpha_composite(_pillow().new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _from_lab(image) -> Any:
    from PIL import ImageCms

    spaces = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, *spaces, outputMode="RGB")


def _eight_bits(image):
    """An image of 16 bits a channel and more, which Pillow would clip, as grey of 8 (``L``, or ``LA`` where one grey
    is transparent)."""
    import numpy as np

    values = np.nan_to_num(np.asarray(image, dtype=float), posinf=0, neginf=0)
    scale = max(float(values.max(initial=0)), 1.0 if image.mode == "F" else 65535.0)
    eight = _pillow().fromarray((values / scale * 255).clip(0, 255).round().astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        eight.putalpha(_pillow().fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return eight


def portable(data: bytes, max_size: int, max_pixels: int | None = None) -> tuple[str, bytes]:
    """Extension and bytes of an image as every reader takes it: as it came, where it is a plain JPEG, PNG or WebP (see
    :func:`is_plain`) of at most ``max_size`` pixels a side, else scaled down and encoded again.

    Raises ValueError like :func:`decode`.
    """
    with _opened(data, "image") as opened:
        picture = _seen(opened, max_pixels)
        if opened.format in KEPT_AS_THEY_CAME and max(opened.size) <= max_size and is_plain(opened):
            return KEPT_AS_THEY_CAME[opened.format], data
    picture.thumbnail((max_size, max_size), _pillow().Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "jpg", buffer.getvalue()


def as_seen(data: bytes, name: str = "image") -> bytes:
    """An image's bytes as any program sees what :func:`decode` gives: as they came where it is plain (see
    :func:`is_plain`), which its head tells, else as PNG. Raises ValueError like :func:`decode`."""
    with _opened(data, name) as opened:
        if opened.format in KEPT_AS_THEY_CAME and is_plain(opened):
            return data
    return encode_png(decode(data, name))


def encode_png(image) -> bytes:
    return encode(image, "png")


def encode(image, kind: str, quality: int | None = None) -> bytes:
    """The file of a picture: png, jpeg or webp, the latter two of a quality from 1 to 100."""
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), **({} if quality is None or kind == "png" else {"quality": quality}))
    return buffer.getvalue()
