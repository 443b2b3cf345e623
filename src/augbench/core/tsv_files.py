"""Long lists of tab-separated lines, such as Conceptual Captions: each line is a row, nothing is quoted, and the first
may name the columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from augbench.core import files, texts
from augbench.core.files import BadInput
from augbench.core.names import first_match

SUFFIX = ".tsv"
CHUNK = 1 << 20  # bytes that are read at a time
WEB = ("http://", "https://")


def is_one(path: str | Path) -> bool:
    return str(path).lower().endswith(SUFFIX)


def columns_of(path: str | Path, columns: Mapping[str, Sequence[str]]) -> tuple[dict[str, int], bool]:
    """Name -> place of the cell, and whether the first line names them. Where it does not, the cell with a web address
    is the url, and the only other one the caption, in either order.

    Raises BadInput when the first line is neither.
    """
    with open(path, "rb") as file:
        cells = _cells(file.readline(CHUNK))
    names = first_match(cells, columns)
    if "url" in names:
        return {name: cells.index(spelt) for name, spelt in names.items()}, True
    addresses = [place for place, cell in enumerate(cells) if cell.startswith(WEB)]
    if len(addresses) != 1 or len(cells) > 2:
        raise BadInput(
            f"{files.printable(path)} should name its columns in the first line, url and caption with a tab between, "
            f"or hold nothing but these two; its first line is {files.printable(' | '.join(cells)[:200])}"
        )
    return {"url": addresses[0], "caption": 1 - addresses[0]}, False


def _cells(line: bytes) -> list[str]:
    return [cell.strip() for cell in texts.decode(line).split("\t")]


def count(path: str | Path, columns: Mapping[str, Sequence[str]]) -> int:
    """The rows of a file."""
    _, is_named = columns_of(path, columns)
    lines, last = 0, b"\n"
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    return lines + (last != b"\n") - is_named


def rows(path: str | Path, start: int, stop: int, columns: Mapping[str, Sequence[str]]) -> Iterator[dict]:
    """Rows ``start`` to ``stop``, as far as there are so many, as dicts from each of ``columns`` to text or None."""
    places, is_named = columns_of(path, columns)
    with open(path, "rb") as file:
        _skip(file, start + is_named)
        for _, line in zip(range(stop - start), file, strict=False):
            cells = _cells(line)
            yield {
                name: (cells[places[name]] or None) if places.get(name, len(cells)) < len(cells) else None
                for name in columns
            }


def _skip(file, lines: int) -> None:
    """Place a file behind so many lines."""
    begin = 0
    while lines and (chunk := file.read(CHUNK)):
        inside = chunk.count(b"\n")
        if inside >= lines:
            end = -1
            for _ in range(lines):
                end = chunk.index(b"\n", end + 1)
            file.seek(begin + end + 1)
            return
        lines, begin = lines - inside, begin + len(chunk)
