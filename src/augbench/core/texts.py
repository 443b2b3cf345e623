"""Text as people's files hold it: captions are read whatever their encoding, tables and names must be plain."""

import codecs
from pathlib import Path

from augbench.core.files import BadInput

MARKS = (  # UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode(data: bytes) -> str:
    """A caption: by its byte order mark, else UTF-8, else UTF-16 where it holds zero bytes, else Windows-1252."""
    for mark, codec in MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(codec, "replace")
    if b"\0" in data[:2]:  # the other half of a Latin letter
        return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le", "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def encoding(head: bytes) -> str:
    """The encoding of a table that begins with ``head``: what its byte order mark says, else UTF-8."""
    return next((codec for mark, codec in MARKS if head.startswith(mark)), "utf-8")


def read(path: str | Path) -> str:
    """The text of a table. Raises BadInput naming the file when it is not UTF-8, or UTF-16 with a byte order mark."""
    data = Path(path).read_bytes()
    codec = encoding(data[:4])
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInput(
            f"{path} is not {codec.upper()}: line {line} holds the byte 0x{data[error.start]:02x}; save it as UTF-8"
        ) from None
    if "\0" in text:
        raise BadInput(f"{path} is not UTF-8 text: it holds zero bytes; save it as CSV in UTF-8")
    return text.removeprefix("\ufeff")
