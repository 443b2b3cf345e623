"""Finds the images of a folder as people have them: nothing that a system put there, and every real folder once."""

import functools
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from augbench.core.files import BadInput, printable

_PILLOW = """
apng avif avifs blp bmp bw cur dcx dds dib fit fits flc fli ftc ftu gbr gif icb icns ico im j2c j2k jfif jp2 jpc jpe
jpeg jpf jpg jpx mpo msp pbm pcd pcx pfm pgm png pnm ppm psd pxr qoi ras rgb rgba sgi tga tif tiff vda vst webp xbm xpm
"""
EXTENSIONS = frozenset(f".{name}" for name in _PILLOW.split())  # of what Pillow decodes without another program
HEIF = frozenset([".heic", ".heics", ".heif", ".heifs", ".hif"])  # of what pillow-heif decodes
_SYSTEM = """$recycle.bin|#recycle|#snapshot|@eadir|@recently-snapshot|@recycle|@thumb|__macosx|__pycache__|_thumbnails
_thumbs|desktop.ini|ehthumbs.db|ehthumbs_vista.db|icon\r|lost+found|picasa.ini|system volume information|thumbnails
thumbs|thumbs.db|thumbsvista.db|zbthumbnail.info"""
SYSTEM = frozenset(re.split(r"[|\n]", _SYSTEM))  # what systems and programs put into folders, in lower case


def is_system(name: str) -> bool:
    """Whether a file or folder of this name was put there by a system or a program: hidden, thumbnail, backup copy."""
    return name.startswith((".", "~$")) or name.endswith("~") or name.lower() in SYSTEM


def is_text(name: str | Path) -> bool:
    """Whether a file's name, as Python has it from the disk, is UTF-8."""
    return printable(name) == str(name)


@functools.cache
def reads_heif() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


def subfolders(folder: str | Path, left_out: Counter | None = None) -> list[Path]:
    """The folders in a folder, sorted; links count as the folders to which they lead, unless these hold the folder."""
    real = os.path.realpath(folder)
    places = []
    for entry in entries(folder):
        kind = _kind(entry, real)
        if kind in ("folder", "linked folder"):
            places.append(Path(entry.path))
        elif left_out is not None:
            left_out["images beside the class folders" if kind == "image" else kind] += 1
    return sorted(places)


def inner(folder: str | Path) -> list[Path]:
    """The folders in a folder that holds no image itself; none as soon as there is one: a folder may be large."""
    real, places = os.path.realpath(folder), []
    for entry in entries(folder):
        kind = _kind(entry, real)
        if kind == "image":
            return []
        if kind in ("folder", "linked folder"):
            places.append(Path(entry.path))
    return sorted(places)


def any_image(folder: str | Path) -> bool:
    """Whether there is an image at any depth below a folder."""
    return next(images(folder), None) is not None


def images(folder: str | Path, left_out: Counter | None = None) -> Iterator[Path]:
    """The image files at any depth below a folder, in no order, one by one: who wants the first alone does not wait
    until a large folder is read.

    Links to files and to folders are followed; each real folder is read once, under its own name where it has one
    here, and none that holds the folder itself. A link that leads nowhere is an image if it is named like one. Other
    files are counted in ``left_out`` by kind, see :func:`left_out_message`. Raises BadInput naming what cannot be
    listed.
    """
    left_out = Counter() if left_out is None else left_out
    root = os.path.realpath(folder)
    places, links, seen = [(str(folder), root)], [], set()
    while places or links:
        if not places:  # links last and in order, so that what they lead to has the same name at every reading
            links.sort(reverse=True)
            places.append(links.pop())
        place, real = places.pop()
        if real in seen:
            left_out["links to folders that are read already"] += 1
            continue
        seen.add(real)
        for entry in entries(place):
            kind = _kind(entry, root)
            if kind == "image":
                yield Path(entry.path)
            elif kind == "folder":
                places.append((entry.path, os.path.join(real, entry.name)))
            elif kind == "linked folder":
                links.append((entry.path, os.path.realpath(entry.path)))
            else:
                left_out[kind] += 1


def files_below(folder: str | Path) -> list[str]:
    """All files at any depth below a folder, sorted, without what systems and programs put there."""
    below: list[str] = []
    for place, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if not is_system(name)]
        below += [os.path.join(place, name) for name in names if not is_system(name)]
    return sorted(below)


def entries(folder: str | Path) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise BadInput(f"cannot list {printable(folder)}: {error.strerror or error}") from None


def _kind(entry: os.DirEntry, root: str) -> str:
    """``image``, ``folder``, ``linked folder``, or what to call a thing that is none of these.

    ``root`` : the real path of the folder that is read
    """
    if is_system(entry.name):
        return "hidden or system folders" if _is(entry.is_dir) else "hidden or system files"
    if _is(entry.is_dir):
        if not entry.is_symlink():
            return "folder"
        real = os.path.realpath(entry.path)
        return "links to a folder above" if f"{root}/".startswith(real.rstrip("/") + "/") else "linked folder"
    extension = os.path.splitext(entry.name)[1].lower()
    if not _is(entry.is_file):
        if not entry.is_symlink() or _is(Path(entry.path).exists):
            return "pipes and devices"
        return "image" if extension in EXTENSIONS else "links that lead nowhere"
    if extension in EXTENSIONS or (extension in HEIF and reads_heif()):
        return "image"
    if extension in ("", ".") or extension[1:].isdigit():
        return "image" if _looks_like_one(entry.path) else "without extension"
    return printable(extension) if len(extension) <= 10 else "of other kinds"


def _is(question) -> bool:
    try:
        return question()
    except OSError:  # links in a circle
        return False


def _looks_like_one(path: str) -> bool:
    """Whether a file without extension begins as an image of a common format does."""
    from augbench.images import is_image

    return is_image(path)


def left_out_message(left_out: Counter) -> str:
    """What is left out, by kind, e.g. ``12 .txt, 3 .heic (`pip install augbench[heif]` reads them)``; or empty."""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count} {kind}{_advice(kind)}" for kind, count in kinds[:8]]
    if rest := sum(count for _, count in kinds[8:]):
        parts.append(f"{rest} of {len(kinds) - 8} further kinds")
    return ", ".join(parts)


def _advice(kind: str) -> str:
    return " (the extra `heif` reads them: pip install pillow-heif)" if kind in HEIF else ""
