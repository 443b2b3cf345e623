"""Files appear whole or not at all: everything augbench writes goes through this module."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


class BadInput(ValueError):
    """What a user's files hold cannot be used: one sentence that says what, where, and what to write."""


POINTER = b"version https://git-lfs"  # the first bytes of what git leaves for a file that was not fetched


def printable(name: str | Path) -> str:
    """A file's name for a message: bytes that are no text are written as ``\\xNN``."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a user's file. Raises BadInput naming it when it is no file or cannot be read."""
    path = Path(path)
    try:
        if path.is_file():  # what is not, a pipe, would be waited for without end
            return path.read_bytes()
        kind = "a link that leads nowhere" if path.is_symlink() else "no file" if path.exists() else "not there"
    except OSError as error:
        raise BadInput(f"cannot read {printable(path)}: {error.strerror or error}") from None
    raise BadInput(f"cannot read {printable(path)}: it is {kind}")


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed and renamed to ``path``.

    The temporary name is unique and in the same folder, so two writers at once are harmless (the last
    rename wins, each file is complete) and a killed writer leaves nothing under the final name. The
    caller may create a file or a folder there. Nothing is left behind when the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary = scratch / path.name
    try:
        yield temporary
        if temporary.is_dir():
            for file in temporary.rglob("*"):
                if file.is_file():
                    flush(file)
            if path.exists():  # a folder cannot be renamed onto a folder that is not empty
                path.rename(scratch / "old")
        else:
            flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def flush(path: Path) -> None:
    """Have the system write a file, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_csv(path: str | Path, table) -> None:
    """Write a pandas table as CSV with a fixed float format, so that equal numbers are equal bytes."""
    with whole(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
