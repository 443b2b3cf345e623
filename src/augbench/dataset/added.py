"""Images that were made elsewhere: what lies where a study says, as the image table of a method."""

import difflib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import files
from augbench.core.files import BadInput, whole
from augbench.dataset.export import export, folder_names
from augbench.images import folders
from augbench.study.classes import added as added_count
from augbench.study.layouts import AddedImage, layout_of
from augbench.study.readers.layout import HELD_OUT, same_name

LARGEST_SEED = 2**63 - 1  # that an image table holds


def read(
    method: str, path: str | Path, classes: Sequence[str], rows: Iterable[AddedImage] | None = None
) -> pd.DataFrame:
    """The images at ``path``, in any layout of :data:`augbench.study.layouts.LAYOUTS`, as an image table with the
    column ``source``: what each was made from, as its maker wrote it, or empty.

    ``rows``: some of them. Raises BadInput with one sentence: there is nothing, an image is there twice, has a name
    that is no text, or a class that is not one of ``classes``.
    """
    rows = layout_of(path).rows(Path(path)) if rows is None else rows
    names, seen, lines, sources = _known_labels(classes), set(), [], []
    for row in rows:
        if row.name in seen:
            raise BadInput(f"{files.printable(path)} has {files.printable(row.name)} twice; keep one of them")
        seen.add(row.name)
        if not folders.is_text(row.path):
            raise BadInput(f"the name of {files.printable(row.path)} is not UTF-8; rename it")
        key = names.get(same_name(row.label))
        if key is None:
            raise BadInput(_unknown_class(row, path, names))
        facts = {name: row.facts.get(name) for name in ("prompt", "model", "licence")}
        place = {"path": row.path, "offset": row.offset, "length": row.length}
        lines.append(
            {"image_id": f"{method}/{row.name}", "class": key, "seed": _seed(row.facts.get("seed")), **place, **facts}
        )
        sources.append(row.facts.get("source", ""))
    if not lines:
        raise BadInput(f"{files.printable(path)} holds no image that could be added")
    table = images.table(lines)
    table["source"] = sources
    return table


def _known_labels(classes: Sequence[str]) -> dict[str, str]:
    """What an image's maker may call a class: by its key, by the name of its folder in an export, or by the position
    of that among them. A key goes before a name, a name before a number."""
    exported = folder_names(classes)
    numbered = {str(number): key for number, key in enumerate(sorted(classes, key=exported.__getitem__))}
    return numbered | {exported[key]: key for key in classes} | {same_name(key): key for key in classes}


def _unknown_class(row: AddedImage, path: str | Path, names: Mapping[str, str]) -> str:
    keys = sorted(set(names.values()))
    alike = [key for key in keys if key.casefold() == row.label.casefold()]
    near = alike or difflib.get_close_matches(row.label, keys, 1, 0.5)
    meant = f"; is it {near[0]!r}?" if near else f"; its classes are {', '.join(keys[:5])}{', ...' * (len(keys) > 5)}"
    return (
        f"{files.printable(path)} has an image of the class {files.printable(row.label)!r} "
        f"({files.printable(row.name)}), which the target does not have{meant}"
    )


def _seed(text: str | None) -> int | None:
    """A seed that an image table can hold; None for any other."""
    if not text or not text.isdecimal():
        return None
    return int(text) if int(text) <= LARGEST_SEED else None


def shortfall(table: pd.DataFrame, wanted: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Class -> images that it has and those that it should have, of the classes that have too few."""
    counts = table["class"].value_counts().to_dict()
    return {key: (counts.get(key, 0), count) for key, count in wanted.items() if counts.get(key, 0) < count}


def check_counts(table: pd.DataFrame, wanted: Mapping[str, int], path: str | Path) -> None:
    """Raise BadInput when a class has fewer images than ``wanted``."""
    if short := shortfall(table, wanted):
        key, (count, full) = max(short.items(), key=lambda item: item[1][1] - item[1][0])
        several = f" ({len(short)} of {len(wanted)} classes have too few)" if len(short) > 1 else ""
        raise BadInput(
            f"the class {key} has {count} images in {files.printable(path)}, but {full} are added to it{several}; make "
            "more, or write `allow_fewer: true` beside the path to add those that there are"
        )


def start_images(table: pd.DataFrame, target: pd.DataFrame) -> list[str | None]:
    """The training image that each image was made from, by its ``image_id``; None where that is not known.

    A source is a path or a name, with or without folders and extension. It means the image of the target whose path
    ends most like it; of several, one of the same class.

    Parameters
    ----------
    table : as :func:`read` gives it; target : all images of the target, with the column ``split``

    Raises BadInput naming an image that was made from one of the validation or test split, or may have been.
    """
    if not any(table["source"]):
        return [None] * len(table)
    by_name: dict[str, list] = {}
    for row in target[["image_id", "class", "path", "split"]].itertuples(index=False, name=None):
        name = row[2].rpartition("/")[2]
        for known in {name, Path(name).stem}:
            by_name.setdefault(known, []).append(row)
    rows = table[["image_id", "class", "source"]].itertuples(index=False, name=None)
    return [_start_image(name, key, source, by_name) for name, key, source in rows]


def _start_image(name: str, key: str, source: str, by_name: Mapping[str, Sequence[tuple]]) -> str | None:
    parts = [part for part in source.replace("\\", "/").split("/") if part not in ("", ".")]
    candidates = by_name.get(parts[-1], ()) if parts else ()
    alike = [_common_end(parts, path.split("/")) for _, _, path, _ in candidates]
    meant = [row for row, common in zip(candidates, alike, strict=True) if common == max(alike)]
    meant = [row for row in meant if row[1] == key] or meant
    held_out = next((row for row in meant if row[3] in HELD_OUT), None)
    if held_out and len({row[3] in HELD_OUT for row in meant}) == 1:
        raise BadInput(
            f"{files.printable(name)} was made from {held_out[0]}, an image of the {held_out[3]} split: make images "
            "from training images alone, which `snakemake results/STUDY/export/none/folder` gives"
        )
    if held_out:
        other = next(row for row in meant if row[3] not in HELD_OUT)
        raise BadInput(
            f"the source of {files.printable(name)}, {source!r}, may be {other[0]} or {held_out[0]}, an image of the "
            f"{held_out[3]} split: write sources as paths"
        )
    return meant[0][0] if len(meant) == 1 and meant[0][3] == "train" else None


def _common_end(one: Sequence[str], two: Sequence[str]) -> int:
    """Parts of two paths, counted from their ends, that are the same; the last ones are known to mean one name."""
    common = 1
    while common < min(len(one), len(two)) and one[-1 - common] == two[-1 - common]:
        common += 1
    return common


def unreadable(table: pd.DataFrame, at_most: int | None = None) -> dict[str, str]:
    """``image_id`` -> why it cannot be read; of the first images alone, ``at_most`` so many bytes of them."""
    faults, size = {}, 0
    for name, row in zip(table["image_id"], table.itertuples(), strict=True):
        try:
            data = images.load_bytes(row)
            images.decode(data, images.name_of(row))
        except (ValueError, OSError) as error:
            faults[name] = str(error)
            continue
        size += len(data)
        if at_most is not None and size > at_most:
            break
    return faults


def check_readable(table: pd.DataFrame, at_most: int | None = None) -> None:
    """Raise BadInput naming an image that cannot be read, see :func:`unreadable`."""
    for fault in unreadable(table, at_most).values():
        raise BadInput(f"{fault}; repair or remove it, or set `unreadable: skip` in `target`")


def write(
    path: str | Path,
    method: str,
    place: str | Path,
    classes: pd.DataFrame,
    target: pd.DataFrame,
    policy: str,
    ratio: float | None,
) -> None:
    """Write the image table of the images that lie at ``place``, after all checks.

    Parameters
    ----------
    classes : the class table of the study; target : all images of the target, with the column ``split``
    policy : for images that cannot be read, ``stop`` or ``skip``
    ratio : the largest at which they are added; None: a class may have fewer

    Raises BadInput with one sentence.
    """
    table = read(method, place, list(classes["class"]))
    table["start_image"] = start_images(table, target)
    if policy == "skip":
        faults = unreadable(table)
        for fault in faults.values():
            print(f"left out: {fault}", flush=True)
        table = table[~table["image_id"].isin(faults)]
    else:
        check_readable(table)
    if ratio is not None:
        kept = classes[classes["excluded"] == ""]
        wanted = {key: added_count(count, ratio) for key, count in zip(kept["class"], kept["wanted"], strict=True)}
        check_counts(table, wanted, place)
    images.write(path, table)


def run_script(script: str | Path, train: pd.DataFrame, classes: Sequence[Mapping], folder: str | Path) -> None:
    """Let a user's Python script fill ``folder``, whole or not at all: it is called with the folder of the training
    images, ``CLASS/*``, and the folder to fill. Raises BadInput when it fails or leaves the folder empty."""
    with whole(folder) as temporary, tempfile.TemporaryDirectory(dir=temporary.parent) as scratch:
        export("folder", train, train.iloc[:0], classes, Path(scratch, "export"), {})
        temporary.mkdir()
        command = [sys.executable, str(script), str(Path(scratch, "export", "train")), str(temporary)]
        code = subprocess.run(command, check=False).returncode
        if code:
            raise BadInput(f"{script} ended with exit code {code}; what it said stands above")
        if not any(temporary.iterdir()):
            raise BadInput(f"{script} wrote nothing into the folder that is its second argument")
