"""How images that were made elsewhere lie: a class for each layout, and the table of them.

A set of images is read as rows that name a class as its maker wrote it; which class of the target is meant, and
whether the images can be used, is known to :mod:`augbench.dataset.added`. A new layout is a class here and a row of
``LAYOUTS``.
"""

import functools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from augbench import images
from augbench.core import files, list_files, texts
from augbench.core.files import BadInput
from augbench.images import folders
from augbench.study.readers.list_file import LIST, slashes

FACTS = {  # what a table may say of an image besides its place and class, and how else people call it
    "prompt": ["text", "caption"],
    "seed": [],
    "source": ["source image", "start image", "original"],
    "model": ["generator"],
    "licence": ["license"],
    "origin": [],  # in augbench's own exports: real or added
}
COLUMNS = {"path": LIST["path"], "class": LIST["class"], **FACTS}
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # of an imagefolder, as the library datasets reads it
EXPORTED = {"label": [], "folder": [], "class": []}  # columns of classes.csv in augbench's own exports
REAL = re.compile(r"real-\d{7}\.\w+")  # names of training images in these
KINDS = (
    "class folders CLASS/*.png, WebDataset shards *.tar, a Hugging Face imagefolder with metadata.jsonl, or a CSV or "
    "Parquet list with the columns path,class"
)


@dataclass(frozen=True)
class AddedImage:
    """An image that was made elsewhere.

    name : unlike that of all others of its set; label : its class, as its maker wrote it
    path : its file, or the shard that holds it from byte ``offset`` on, ``length`` bytes
    facts : those of FACTS that are known
    """

    name: str
    label: str
    path: str
    offset: int | None = None
    length: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


class Layout:
    """What the program asks of a layout."""

    name: str

    def fits(self, path: Path) -> bool:
        """Whether what lies at ``path`` is laid out so."""
        raise NotImplementedError

    def rows(self, path: Path) -> Iterator[AddedImage]:
        """The images, one by one, in an order of their own. Raises BadInput naming what cannot be understood."""
        raise NotImplementedError

    def files(self, path: Path) -> Iterable[Path]:
        """All files that are read."""
        raise NotImplementedError


class ImageList(Layout):
    name = "list"

    def fits(self, path):
        return path.is_file() and path.suffix.lower() != ".tar"

    def rows(self, path):
        """A CSV or Parquet list: path (relative to the list), class, and perhaps what is in FACTS."""
        table = list_files.read(path, COLUMNS, ["path", "class"])
        yield from _rows_of_table(path, slashes(path, table["path"]).to_pylist(), table.to_pylist())

    def files(self, path):
        return [path, *(Path(row.path) for row in self.rows(path))]


class Shards(Layout):
    name = "webdataset"

    def fits(self, path):
        return bool(_shards(path))

    def rows(self, path):
        """Samples with an image, its class as ``cls`` or in ``json``, and perhaps a prompt as ``txt``."""
        known = _exported_classes(path, "label")
        for shard in _shards(path):
            for key, sample in images.samples(shard, read=("cls", "json", "txt")):
                picture = images.picture_in(sample)
                facts = _facts_of_sample(shard, key, sample)
                label = facts.pop("class", "") or known.get(facts["cls"], facts["cls"])
                if picture is None or _is_real(facts):
                    continue
                if not label:
                    raise BadInput(f"the sample {key} of {files.printable(shard)} has neither cls nor a class in json")
                place = sample[picture]
                yield AddedImage(f"{shard.name}/{key}", label, str(shard), place.offset, place.length, facts)

    def files(self, path):
        return [*_shards(path), *_tables(path)]


class ImageFolder(Layout):
    name = "imagefolder"

    def fits(self, path):
        return bool(_metadata(path))

    def rows(self, path):
        """Files that ``metadata.jsonl`` (or .csv, .parquet) names as ``file_name``, relative to it; of class ``class``
        or ``label``, or that of their folder."""
        source = _metadata(path)[0]
        if source.suffix != ".jsonl":
            table = list_files.read(source, COLUMNS, ["path"])
            yield from _rows_of_table(source, slashes(source, table["path"]).to_pylist(), table.to_pylist())
        else:
            rows = list(_json_lines(source))
            yield from _rows_of_table(source, [row.get("path", "") for row in rows], rows)

    def files(self, path):
        return [*_metadata(path)[:1], *(Path(row.path) for row in self.rows(path))]


class ClassFolders(Layout):
    name = "folder"

    def fits(self, path):
        return path.is_dir()

    def rows(self, path):
        """``CLASS/*``, or ``train/CLASS/*`` where there is no other folder, as augbench's exports have it."""
        known, left_out = _exported_classes(path, "folder"), Counter()
        root = _inner(path)
        classes = folders.subfolders(root, left_out)
        if not classes and left_out["images beside the class folders"]:
            raise BadInput(
                f"the images of {files.printable(root)} lie in no class folders: sort them into CLASS/, or write a "
                "list with the columns path,class"
            )
        for folder in classes:
            for file in sorted(folders.images(folder)):
                if not (known and REAL.fullmatch(file.name)):
                    yield AddedImage(os.path.relpath(file, root), known.get(folder.name, folder.name), str(file))

    def files(self, path):
        return [*folders.images(path), *_tables(path)]


# The first that fits is meant.
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (ImageList(), Shards(), ImageFolder(), ClassFolders())}


def layout_of(path: str | Path) -> Layout:
    """The layout of what lies at ``path``. Raises BadInput when nothing does."""
    layout = next((layout for layout in LAYOUTS.values() if layout.fits(Path(path))), None)
    if layout is None:
        raise BadInput(f"there is no folder or file {files.printable(path)}; give {KINDS}")
    return layout


def _inner(path: Path) -> Path:
    """The folder of the class folders: ``path``, or the folder train that is all it holds."""
    inner = folders.subfolders(path)
    return inner[0] if [folder.name for folder in inner] == ["train"] else path


def _metadata(path: Path) -> list[Path]:
    """The tables of an imagefolder, of which the first is read."""
    places = (folder / name for folder in (path, path / "train") for name in METADATA)
    return [place for place in places if place.is_file()]


def _shards(path: Path) -> list[Path]:
    if path.is_dir():
        names = sorted(entry.path for entry in folders.entries(path) if not folders.is_system(entry.name))
        return [Path(name) for name in names if name.lower().endswith(".tar")]
    return [path] if path.is_file() and path.suffix.lower() == ".tar" else []


def _tables(path: Path) -> list[Path]:
    """``classes.csv`` of an export of augbench, in its folder or beside the folder train."""
    place = (path.parent if path.name == "train" or path.is_file() else path) / "classes.csv"
    return [place] if place.is_file() else []


def _exported_classes(path: Path, column: str) -> dict[str, str]:
    """Label or folder -> class, of an export of augbench; empty for all that is none."""
    for place in _tables(path):
        rows = list_files.read(place, EXPORTED, []).to_pylist()
        if rows and rows[0].keys() == EXPORTED.keys():
            return {row[column]: row["class"] for row in rows}
    return {}


def _is_real(facts: Mapping[str, str]) -> bool:
    """Whether an image of an export is a training image, which is no added one."""
    return facts.get("origin") == "real"


def _rows_of_table(source: Path, paths: Iterable[str], rows: Iterable[Mapping[str, str]]) -> Iterator[AddedImage]:
    """The images of a table; the class of one that the table does not say is the name of its folder."""
    for number, (path, row) in enumerate(zip(paths, rows, strict=True), 1):
        facts = {name: row[name] for name in FACTS if row.get(name)}
        label = row.get("class") or Path(path).parent.name
        if _is_real(facts):
            continue
        if not path or not label:
            what = "class, and its file lies in no folder" if path else "path"
            raise BadInput(f"{files.printable(source)}: row {number} has no {what}")
        yield AddedImage(os.path.normpath(path), label, str(source.parent / path), facts=facts)


def _json_lines(source: Path) -> Iterator[dict[str, str]]:
    for number, line in enumerate(texts.read(source).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
                yield {name: _text(row[key]) for name, key in _keys(tuple(row), source).items()}
            except BadInput:
                raise
            except (ValueError, TypeError) as error:
                raise BadInput(f"{files.printable(source)}: line {number} is no JSON object: {error}") from None


@functools.lru_cache(maxsize=64)  # nearly all lines of a file have the same keys
def _keys(keys: tuple[str, ...], source: Path) -> dict[str, str]:
    """Name of a column -> the key that means it."""
    return {name: keys[place] for name, place in list_files.match(keys, COLUMNS, source).items()}


def _text(value) -> str:
    return "" if value is None else str(value).strip()


def _facts_of_sample(shard: Path, key: str, sample: Mapping[str, images.Member]) -> dict[str, str]:
    """``cls`` (or empty) and what else the members of a sample say."""
    texts = {name: sample[name].data.decode("utf-8", "replace").strip() for name in ("cls", "txt") if name in sample}
    facts = {"cls": texts.get("cls", ""), "prompt": texts.get("txt", "")}
    if "json" in sample:
        try:
            row = json.loads(sample["json"].data)
            facts |= {name: _text(row[key]) for name, key in _keys(tuple(row), shard).items() if row[key] is not None}
        except BadInput:
            raise
        except (ValueError, TypeError):
            raise BadInput(f"the sample {key} of {files.printable(shard)}: its json is no JSON object") from None
    return facts
