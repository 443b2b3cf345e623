"""Image tables: the one description of a set of images that all stages exchange.

A set of images is a Parquet table with one row per image and a reference to its bytes: a file, or a
stretch of an uncompressed tar (a WebDataset shard). Splits are tables; no image is ever copied to
make one.
"""

import contextlib
import functools
import io
import json
import re
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from augbench import files, folders
from augbench.files import whole

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),  # unique and stable: where an image comes from, never its position
        ("class", pa.string()),  # class key, e.g. a wnid or folder name
        ("path", pa.string()),  # file, or shard that holds the bytes
        ("offset", pa.int64()),  # first byte within the shard; null: the file is the image
        ("length", pa.int64()),  # number of bytes; null with offset
        # provenance of generated images
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("candidate", pa.string()),
        ("replaced", pa.int32()),  # draws the safety checker refused before this one
        # provenance of retrieved images
        ("url", pa.string()),
        ("similarity", pa.float64()),  # cosine similarity to the query, unitless
        ("sha256", pa.string()),  # of the bytes as downloaded
    ]
)


def table(rows: Iterable[dict]) -> pd.DataFrame:
    """An image table from rows; columns that a row leaves out are null."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMA).to_pandas(types_mapper=_nullable)


def _nullable(kind: pa.DataType):
    return {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}.get(kind)


def _with(extra: Iterable[str]) -> pa.Schema:
    return pa.schema([*SCHEMA, *((name, pa.string()) for name in extra)])


def write(path: str | Path, images: pd.DataFrame, extra: Iterable[str] = ()) -> None:
    """Write an image table to Parquet, with further text columns ``extra``.

    Raises ValueError when an ``image_id`` occurs twice.
    """
    twice = images["image_id"][images["image_id"].duplicated()]
    if len(twice):
        raise ValueError(f"{path}: image_id {twice.iloc[0]!r} occurs twice")
    with whole(path) as temporary:
        pq.write_table(pa.Table.from_pandas(images, schema=_with(extra), preserve_index=False), temporary)


def read(*paths: str | Path, extra: Iterable[str] = ()) -> pd.DataFrame:
    """Read one or several image tables as one, in the order given."""
    schema = _with(extra)
    tables = [pq.read_table(path, schema=schema) for path in paths]
    return pa.concat_tables(tables or [schema.empty_table()]).to_pandas(types_mapper=_nullable)


def load_bytes(row) -> bytes:
    """The encoded image a row refers to (row: anything with ``path``, ``offset``, ``length``)."""
    if pd.isna(row.offset):
        return files.read_bytes(row.path)
    with open(row.path, "rb") as shard:
        shard.seek(int(row.offset))
        return shard.read(int(row.length))


# --- the decoder ----------------------------------------------------------------------------------------

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
SIGNED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")  # formats told by first bytes


@functools.cache
def _pillow():
    """Pillow's module Image, which knows of HEIF where pillow-heif is installed."""
    from PIL import Image

    if folders.reads_heif():
        import pillow_heif

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


def size_of(path: str | Path) -> tuple[int, int] | None:
    """Width and height of the image in a file, as stored, from its head alone; None when it cannot be read."""
    try:
        with _pillow().open(path) as image:
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
        raise ValueError(f"too many pixels: {image.width} x {image.height}")
    orientation = _orientation(image)
    if at_least:
        image.draft(None, at_least[::-1] if orientation in LYING else at_least)
    seen = _rgb(image)
    return seen.transpose(_pillow().Transpose[TURNS[orientation]]) if orientation in TURNS else seen


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


def upright(data: bytes, name: str = "image") -> tuple[tuple[int, int], tuple[bool, bool]]:
    """Width and height of the upright image, without decoding it, and whether it is stored from right to left and from
    bottom to top. Raises ValueError like :func:`decode`."""
    with _opened(data, name) as image:
        turned = _orientation(image)
        return image.size[::-1] if turned in LYING else image.size, (turned in (2, 3, 6, 7), turned in (3, 4, 7, 8))


@contextlib.contextmanager
def _opened(data: bytes, name: str):
    """The image that Pillow opens. Raises BadInput naming it, also for what its decoding in the block raises."""
    image = _pillow()
    try:
        with image.open(io.BytesIO(data)) as opened:
            yield opened
    except image.DecompressionBombError as error:  # Pillow's own limit, which is higher
        raise files.BadInput(f"cannot read {files.printable(name)}: too many pixels: {error}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged input
        raise files.BadInput(f"cannot read {files.printable(name)}: {_reason(data, error)}") from error


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "it is empty"
    if data.startswith(files.POINTER):
        return "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"
    words = " ".join(str(error).split())
    return "it is no image that Pillow knows" if "BytesIO object" in words else words or type(error).__name__


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
        from PIL import ImageCms

        spaces = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, *spaces, outputMode="RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        image = _pillow().alpha_composite(_pillow().new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


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


def name_of(row) -> str:
    """What to call a row's image in a message."""
    return row.path if pd.isna(row.offset) else f"{row.image_id} in {row.path}"


def load(row, at_least: tuple[int, int] | None = None):
    """The image of a row as RGB ``PIL.Image``; ``at_least`` as in :func:`decode`."""
    return decode(load_bytes(row), name_of(row), at_least=at_least)


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
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# --- shards ---------------------------------------------------------------------------------------------

IMAGE_KEYS = ("png", "jpg", "jpeg", "webp")  # extensions of images in a shard, which go before all others
JPEG_QUALITY = 95  # of images that are scaled down
KEPT_AS_THEY_CAME = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


class ShardWriter:
    """Writes a WebDataset shard whose bytes depend on its members alone, and remembers where each is.

    Each sample is a group of members ``key.extension``. Usage::

        with whole(path) as temporary, ShardWriter(temporary) as shard:
            offset, length = shard.add("000017", {"png": data, "txt": "a caption"}, of="png")
    """

    def __init__(self, path: str | Path):
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._tar.close()

    def add(self, key: str, members: dict[str, bytes | str | dict], of: str) -> tuple[int, int]:
        """Append one sample; returns offset and length in bytes of the member ``of``.

        Text is stored as UTF-8, a dict as JSON.
        """
        where = (0, 0)
        for extension, content in members.items():
            if isinstance(content, dict):
                content = json.dumps(content, ensure_ascii=False)
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(f"{key}.{extension}")
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))
            if extension == of:
                end = self._tar.offset
                where = (end - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(data))
        return where


class Member(NamedTuple):
    """A file in a shard: its bytes, and the place of the first of them in the shard."""

    data: bytes
    offset: int


def samples(path: str | Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """Iterate over the samples of a shard as (key, {extension: member}), in their order, as webdataset reads them.

    A key is a name with its folders up to the first dot after them, an extension what follows, in lower case. Hidden
    members, such as a Mac's ``._000.jpg``, belong to none. Raises BadInput naming the shard when it is damaged.
    """
    key, sample = None, {}
    for member, data in _members(path, lambda tar, member: tar.extractfile(member).read()):
        if not (parts := NAME.fullmatch(member.name)) or META.match(member.name):
            continue
        if sample and parts[1] != key:
            yield key, sample
            sample = {}
        key, extension = parts[1], parts[2].lower()
        if extension not in sample:  # webdataset, too, keeps the first
            sample[extension] = Member(data, member.offset_data)
    if sample:
        yield key, sample


NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)  # webdataset's own patterns
META = re.compile(r"__[^/]*__($|/)")


def _members(path: str | Path, read: Callable = lambda tar, member: None) -> Iterator[tuple[tarfile.TarInfo, Any]]:
    """The files in a tar, each with what ``read`` makes of it. Raises BadInput naming the tar when it is damaged, also
    where Python would only stop early."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile():
                    yield member, read(tar, member)
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise files.BadInput(f"the shard {files.printable(path)} cannot be read: {_fault(path, error)}") from None


def _fault(path: str | Path, error: Exception) -> str:
    """What is wrong with a shard that cannot be read, and what to do."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as reason:
        return str(reason.strerror)
    if not head:
        return "it is empty; copy or download it again"
    if head.startswith(files.POINTER):
        return "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "it is compressed; unpack it, so that images can be read where they lie"
    return f"it is damaged, cut off or no tar ({error}); copy or download it again, or take it away"


def check_shard(path: str | Path) -> None:
    """Raise BadInput when a shard's size alone says that it is damaged: a tar is a whole number of blocks."""
    size = Path(path).stat().st_size
    if size == 0 or size % tarfile.BLOCKSIZE:
        raise files.BadInput(f"the shard {files.printable(path)} cannot be read: {_fault(path, 'its end is missing')}")


def read_shard(path: str | Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """:func:`samples` without places: (key, {extension: bytes})."""
    for key, sample in samples(path):
        yield key, {extension: member.data for extension, member in sample.items()}


def picture_in(sample: Collection[str]) -> str | None:
    """The extension under which a sample holds its image; None for a sample without one."""
    return next((key for key in IMAGE_KEYS if key in sample), None) or next(
        (key for key in sorted(sample) if f".{key}" in folders.EXTENSIONS | folders.HEIF), None
    )


def member_places(path: str | Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names of a tar's files, each with offset and length of its bytes."""
    for member, _ in _members(path):
        yield member.name, (member.offset_data, member.size)
