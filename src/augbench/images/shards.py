"""WebDataset shards: uncompressed tars of images with their captions and metadata, written and read."""

import io
import json
import re
import tarfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from augbench.core import files
from augbench.images import folders

IMAGE_KEYS = ("png", "jpg", "jpeg", "webp")  # extensions of images in a shard, which go before all others


class ShardWriter:
    """Writes a WebDataset shard whose bytes depend on its members alone, and remembers where each is.

    Each sample is a group of members ``key.extension``. Usage::

        with whole(path) as temporary, ShardWriter(temporary) as shard:
            offset, length = shard.add("000017", {"png": data, "txt": "a caption"}, image="png")
    """

    def __init__(self, path: str | Path):
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._tar.close()

    def add(self, key: str, members: dict[str, bytes | str | dict], image: str) -> tuple[int, int]:
        """Append one sample; returns offset and length in bytes of the member with the extension ``image``.

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
            if extension == image:
                end = self._tar.offset
                where = (end - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(data))
        return where


class Member(NamedTuple):
    """A file in a shard: its bytes (empty where they were not read), the place of the first of them in the shard, and
    their number."""

    data: bytes
    offset: int
    length: int


def samples(path: str | Path, read: Collection[str] | None = None) -> Iterator[tuple[str, dict[str, Member]]]:
    """Iterate over the samples of a shard as (key, {extension: member}), in their order, as webdataset reads them.

    A key is a name with its folders up to the first dot after them, an extension what follows, in lower case. Hidden
    members, such as a Mac's ``._000.jpg``, belong to none. ``read`` names the extensions of the members whose bytes are
    wanted; None: all. Raises BadInput naming the shard when it is damaged.
    """

    def bytes_of(tar, member) -> bytes:
        wanted = read is None or member.name.rpartition(".")[2].lower() in read
        return tar.extractfile(member).read() if wanted else b""

    key, sample = "", {}
    for member, data in _members(path, bytes_of):
        if not (parts := NAME.fullmatch(member.name)) or META.match(member.name):
            continue
        if sample and parts[1] != key:
            yield key, sample
            sample = {}
        key, extension = parts[1], parts[2].lower()
        if extension not in sample:  # webdataset, too, keeps the first
            sample[extension] = Member(data, member.offset_data, member.size)
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


def _fault(path: str | Path, error: Exception | str) -> str:
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
