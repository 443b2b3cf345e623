"""Image tables: the one description of a set of images that all stages exchange.

A set of images is a Parquet table with one row per image and a reference to its bytes: a file, or a
stretch of an uncompressed tar (a WebDataset shard). Splits are tables; no image is ever copied to
make one.
"""

import contextlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

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
        return Path(row.path).read_bytes()
    with open(row.path, "rb") as shard:
        shard.seek(int(row.offset))
        return shard.read(int(row.length))


def decode(data: bytes, name: str = "image", max_pixels: int | None = None, at_least: tuple[int, int] | None = None):
    """Decode to an RGB ``PIL.Image``: the first frame, upright, on white where it is transparent.

    A JPEG is decoded at a half, quarter or eighth of its size, which takes a fraction of the time, where it still has
    ``at_least`` so many pixels in width and height. Raises ValueError naming the image when that is impossible, or
    when it has more than ``max_pixels``, which is known before a pixel is decoded.
    """
    from PIL import ImageOps

    with _opened(data, name) as image:
        if max_pixels and image.width * image.height > max_pixels:
            raise ValueError(f"too many pixels: {image.width} x {image.height}")
        if at_least:
            image.draft(None, at_least[::-1] if _orientation(image) in LYING else at_least)
        return _rgb(ImageOps.exif_transpose(image))


def upright(data: bytes, name: str = "image") -> tuple[tuple[int, int], tuple[bool, bool]]:
    """Width and height of the upright image, without decoding it, and whether it is stored from right to left and from
    bottom to top. Raises ValueError like :func:`decode`."""
    with _opened(data, name) as image:
        turned = _orientation(image)
        return image.size[::-1] if turned in LYING else image.size, (turned in (2, 3, 6, 7), turned in (3, 4, 7, 8))


@contextlib.contextmanager
def _opened(data: bytes, name: str):
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except Image.DecompressionBombError as error:  # Pillow's own limit, which is higher
        raise ValueError(f"cannot read {name}: too many pixels: {error}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged input
        raise ValueError(f"cannot read {name}: {error}") from error


LYING = (5, 6, 7, 8)  # EXIF orientations of images that are stored on their side


def _orientation(image) -> int:
    from PIL import ExifTags

    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _rgb(image):
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a channel and more, which Pillow would clip
        import numpy as np

        values = np.asarray(image, dtype=float)
        scale = 65535 if image.mode.startswith("I") else max(float(values.max()), 1.0)
        image = Image.fromarray((values / scale * 255).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def name_of(row) -> str:
    """What to call a row's image in a message."""
    return row.path if pd.isna(row.offset) else f"{row.image_id} in {row.path}"


def load(row, at_least: tuple[int, int] | None = None):
    """The image of a row as RGB ``PIL.Image``; ``at_least`` as in :func:`decode`."""
    return decode(load_bytes(row), name_of(row), at_least=at_least)


def portable(data: bytes, max_size: int, max_pixels: int | None = None) -> tuple[str, bytes]:
    """Extension and bytes of an image as every reader takes it: as it came, where it is a plain RGB or grey JPEG, PNG
    or WebP of at most ``max_size`` pixels a side, else scaled down and encoded again.

    Raises ValueError like :func:`decode`.
    """
    from PIL import Image

    picture = decode(data, max_pixels=max_pixels)
    with Image.open(io.BytesIO(data)) as opened:
        simple = opened.mode in ("RGB", "L") and getattr(opened, "n_frames", 1) == 1
        if simple and opened.format in KEPT_AS_THEY_CAME and max(opened.size) <= max_size:
            return KEPT_AS_THEY_CAME[opened.format], data
    picture.thumbnail((max_size, max_size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "jpg", buffer.getvalue()


def encode_png(image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


IMAGE_KEYS = ("png", "jpg", "jpeg", "webp")  # extensions of images in a shard
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


def read_shard(path: str | Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Iterate over the samples of a shard as (key, {extension: bytes}), in their order."""
    key, sample = None, {}
    with tarfile.open(path) as tar:
        for member in tar:
            if not member.isfile():
                continue
            stem, _, extension = member.name.partition(".")
            if key is not None and stem != key:
                yield key, sample
                sample = {}
            key = stem
            sample[extension] = tar.extractfile(member).read()
    if key is not None:
        yield key, sample


def member_places(path: str | Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names of a tar's files, each with offset and length of its bytes."""
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile():
                yield member.name, (member.offset_data, member.size)


def image_key(shard: str | Path) -> tuple[str, bool]:
    """The extension under which a WebDataset shard holds its images, e.g. ``jpg``, and whether there is JSON too."""
    for _, sample in read_shard(shard):
        for kind in IMAGE_KEYS:
            if kind in sample:
                return kind, "json" in sample
    raise ValueError(f"{shard} holds no image ({', '.join(IMAGE_KEYS)})")
