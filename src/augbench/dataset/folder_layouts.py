"""Where a target's images lie: layouts of folders and lists as people have them, told apart without guessing."""

import difflib
import functools
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from augbench.core import files, list_files, package_data
from augbench.core.files import BadInput
from augbench.images import folders

SPLIT_NAMES = {  # what people call the folders and rows of a split, in any case
    "train": ("train", "training", "trn"),
    "validation": ("validation", "val", "valid", "vali", "dev", "development"),
    "test": ("test", "tests", "testing", "tst", "eval", "evaluation", "holdout", "heldout"),
}
HELD_OUT = ("validation", "test")
FILLERS = {"set", "data", "dataset", "split", "images", "image", "imgs", "folder"}  # train_set, Test Images
SYNSETS = package_data.bundled("imagenet_synsets.csv")  # WordNet's names of ImageNet's classes
CLUTTER = "257.clutter"  # of Caltech256: no class


@dataclass(frozen=True)
class Layout:
    """Where a target's images lie.

    root : what ``image_id`` is relative to; classes : class -> its name as its folder has it, in their order
    train : the images of a class, in any order, of which the training images are drawn, and the validation and test
        images where the target has none of its own; own : splits of its own -> the images of a class. None of these
        looks at a disk before it is asked.
    names : CSV of the classes' names, or None
    left_out : what was not taken, by kind (see :mod:`augbench.images.folders`), of what has been looked at so far
    """

    root: Path
    classes: dict[str, str]
    train: Callable[[str], Iterable[Path]]
    own: Mapping[str, Callable[[str], Iterable[Path]]] = field(default_factory=dict)
    names: Path | None = None
    left_out: Counter = field(default_factory=Counter)


def split_called(name: str) -> str | None:
    """The split that a folder or a row of this name belongs to: train, validation, test; None for any other name."""
    words = re.split(r"[\W_0-9]+", unicodedata.normalize("NFKC", name).casefold())
    word = "".join(word for word in words if word not in FILLERS)
    word = re.sub("(set|data)$", "", word)
    return next((split for split, names in SPLIT_NAMES.items() if word in names), None)


def _folder(target) -> Layout:
    """``train/CLASS/*.jpg``, and ``val`` and ``test`` likewise where there are such; or ``CLASS/*.jpg`` alone.

    Which of them it is, the names of the top folders say where all are splits or none is, else :func:`_splits`.
    """
    path = Path(target.path)
    left_out: Counter = Counter()
    tops = folders.subfolders(path)
    splits = _splits(target, tops)
    if not splits:
        if target.folders != "classes":
            _refuse_hidden_splits(path, tops)
        classes = _classes(path, left_out)
        return Layout(path, classes, lambda key: folders.images(path / key, left_out), left_out=left_out)
    for top in set(tops) - set(splits.values()):
        left_out[f"folder {files.printable(top.name)}"] += 1
    train = splits.pop("train")
    classes, own = _classes(train, left_out), {}
    for split, folder in splits.items():
        if os.path.realpath(folder) == os.path.realpath(train):
            raise BadInput(f"{folder} and {train} are the same folder; remove the link")
        names = _names_of_own(folder, train, classes, left_out)
        own[split] = functools.partial(_class_files, names, left_out)
    return Layout(path, classes, lambda key: folders.images(train / key, left_out), own, left_out=left_out)


def _splits(target, tops: Sequence[Path]) -> dict[str, Path]:
    """Split -> its folder, of the folders in a target's; empty when they are classes. Raises BadInput where they could
    be either, or the splits are not complete.

    Folders without images, such as ``annotations``, are neither. A folder called as a split beside several others
    that hold images themselves is a class as they are: ``bus, car, train, truck``.
    """
    named = {top: split for top in tops if (split := split_called(top.name))}
    if target.folders == "classes" or not named:
        if target.folders == "splits":
            raise BadInput(f"{target.path} has no folder called train; `folders: splits` needs one")
        return {}
    others = [] if target.folders == "splits" else [top for top in tops if top not in named and folders.any_image(top)]
    if others:
        if len(named) == 1 and len(others) > 1 and not any(map(folders.inner, others)):
            return {}
        seen, unknown = (", ".join(sorted(top.name for top in group)[:3]) for group in (named, others))
        raise BadInput(
            f"{target.path} has folders called as splits ({seen}) and others ({unknown}): write `folders: splits` into "
            "`target` to use the splits alone, or `folders: classes` if all of them are classes"
        )
    splits: dict[str, Path] = {}
    for top, split in named.items():
        if split in splits:
            raise BadInput(
                f"{splits[split]} and {top} would both be the {split} split: join them, or take one away from "
                f"{target.path}"
            )
        splits[split] = top
    if "train" not in splits:
        raise BadInput(
            f"{target.path} has {' and '.join(top.name for top in named)} but no folder called train: add one, or "
            "write `folders: classes` into `target` if these are classes"
        )
    return splits


def _refuse_hidden_splits(path: Path, tops: Sequence[Path]) -> None:
    """Raise BadInput for layouts in which the classes lie elsewhere than in the top folders: no top folder holds images
    itself, which the first of them tells nearly always."""
    inner: dict[Path, list[Path]] = {}
    for top in tops:
        inner[top] = folders.inner(top)
        if not inner[top]:
            return
    if len(tops) == 1:
        (wrapper, below) = (tops[0], inner[tops[0]])
        while len(below) == 1:
            wrapper, below = below[0], folders.inner(below[0])
        if below:
            raise BadInput(f"the only folder in {path} holds others, as classes do: write `path: {wrapper}`")
    names = [{folder.name for folder in below} for below in inner.values()]
    if len(tops) > 1 and all(map(_splits_inside, names)):
        split = min(names[0])
        raise BadInput(
            f"the classes of {path} hold splits ({tops[0].name}/{split}); put the classes into the splits "
            f"({split}/{tops[0].name}), or write a list with the columns path,class,split"
        )
    shared = set.intersection(*names) if 1 < len(tops) <= 5 else set()
    if len(shared) > 1:
        raise BadInput(
            f"the folders {', '.join(top.name for top in tops)} of {path} hold the same folders "
            f"({', '.join(sorted(shared)[:3])}), as splits do: call them train, val and test, or write "
            "`folders: classes` into `target` if they are classes"
        )


def _splits_inside(names: Collection[str]) -> bool:
    """Whether folders of these names are splits: two of them at least, one of them for training."""
    called = [split_called(name) for name in names]
    return len(called) > 1 and all(called) and "train" in called


def _classes(folder: Path, left_out: Counter | None = None) -> dict[str, str]:
    """The class folders in a folder. Raises BadInput for names that are no text and for folders that are the same."""
    classes, real = {}, {}
    for inner in folders.subfolders(folder, left_out):
        if not folders.is_text(inner.name):
            raise BadInput(f"the name of the folder {files.printable(inner)} is not UTF-8; rename it")
        same = real.setdefault(os.path.realpath(inner), inner)
        if same != inner:
            raise BadInput(f"the class folders {same} and {inner} are the same folder; remove the link")
        classes[inner.name] = inner.name
    return classes


def _names_of_own(folder: Path, train: Path, classes: Collection[str], left_out: Counter) -> dict[str, Path]:
    """Class -> its folder in a held-out split; names may differ in their Unicode form, as some systems copy them.

    Raises BadInput when there is none, or one that the training split does not have.
    """
    keys = {same_name(key): key for key in classes}
    inner = folders.subfolders(folder, left_out)
    if not inner:
        flat = "its images lie in no class folders" if folders.any_image(folder) else "it holds no images"
        raise BadInput(
            f"{folder} cannot be used: {flat}; sort them into {folder}/CLASS, or take the folder away and augbench "
            "splits images off"
        )
    places: dict[str, Path] = {}
    for place in inner:
        key = keys.get(same_name(place.name))
        if key is None:
            alike = [key for key in classes if key.casefold() == place.name.casefold()]
            near = alike or difflib.get_close_matches(place.name, classes, 1)
            meant = f"; is it {near[0]!r}?" if near else f"; its folders should be called as those of {train}"
            raise BadInput(f"{files.printable(place)} is a class that {train} does not have{meant}")
        if key in places:
            raise BadInput(f"{places[key]} and {place} are one class, in two Unicode forms; join the folders")
        places[key] = place
    return places


def same_name(name: str) -> str:
    """A name in the one Unicode form that names are compared in: some systems copy ``é`` as two letters."""
    return unicodedata.normalize("NFC", name)


def _class_files(places: Mapping[str, Path], left_out: Counter, key: str) -> Iterable[Path]:
    """The images of a class; none where a held-out split has none of it."""
    return folders.images(places[key], left_out) if key in places else ()


def _imagenet(target) -> Layout:
    """ILSVRC2012: ``train/WNID/*.JPEG``, and ``val`` with a folder for each class or, with ``ground_truth``, flat.

    The test images are those of ``val``, as in the paper.
    """
    path = Path(target.path)
    for name in ("train", "val"):
        if not (path / name).is_dir():
            raise BadInput(f"{path} has no folder {name!r}; ImageNet is train/WNID/*.JPEG and val")
    classes = _classes(path / "train")
    if folders.subfolders(path / "val"):
        test = lambda key: folders.images(path / "val" / key)  # noqa: E731
    elif target.ground_truth:
        groups = functools.cache(lambda: _ground_truth(Path(target.ground_truth), sorted(folders.images(path / "val"))))
        test = lambda key: groups().get(key, [])  # noqa: E731
    else:
        raise BadInput(
            f"{path / 'val'} has no class folders: give `ground_truth`, the devkit's folder or LOC_val_solution.csv"
        )
    return Layout(path, classes, lambda key: folders.images(path / "train" / key), {"test": test}, SYNSETS)


def _ground_truth(source: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Class -> its validation images, from the devkit's folder or from a CSV with ImageId, PredictionString."""
    if source.suffix == ".csv":
        table = list_files.read(source, {"ImageId": [], "PredictionString": []}, ["ImageId", "PredictionString"])
        of = {row["ImageId"]: row["PredictionString"].partition(" ")[0] for row in table.to_pylist()}
    else:
        from scipy.io import loadmat

        data = source / "data" if (source / "data").is_dir() else source
        for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
            if not (data / name).is_file():
                raise BadInput(f"{data} has no {name}; `ground_truth` is the folder ILSVRC2012_devkit_t12")
        synsets = loadmat(data / "meta.mat", squeeze_me=True)["synsets"]
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        numbers = (data / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
        if len(numbers) != len(files):
            raise BadInput(f"{data} names {len(numbers)} validation images, there are {len(files)}")
        of = {file.stem: wnids[int(number)] for file, number in zip(files, numbers, strict=True)}
    groups: dict[str, list[Path]] = {}
    for file in files:
        if file.stem not in of:
            raise BadInput(f"{source} does not say what {file} shows")
        groups.setdefault(of[file.stem], []).append(file)
    return groups


def _caltech256(target) -> Layout:
    """``256_ObjectCategories/NNN.name``, or the folder above it, without the clutter; names as provided."""
    path = Path(target.path)
    inner = path / "256_ObjectCategories"
    root = inner if inner.is_dir() else path
    names = [folder.name for folder in folders.subfolders(root) if folder.name != CLUTTER]
    classes = {name: re.sub(r"^[0-9]+\.|-101$", "", name) for name in names}
    return Layout(root, classes, lambda key: folders.images(root / key))


LIST = {  # columns of a list, and what else people call them
    "path": ["file", "filename", "filepath", "image", "imagepath", "imagefile", "imagename", "img", "imgpath"],
    "class": ["classname", "label", "labelname", "category", "categoryname", "target"],
    "split": ["set", "subset", "partition"],
}


def _list(target) -> Layout:
    """A CSV or Parquet file with path (relative to it), class and perhaps split: train, validation or test."""
    source = Path(target.path)
    status = source.stat()
    rows = _rows(source, status.st_size, status.st_mtime_ns)

    def of(part: str) -> Callable[[str], Iterable[Path]]:
        return lambda key: (source.parent / path for path in rows.paths(part, key))

    left_out = Counter({"rows that say what another says": rows.repeated} if rows.repeated else {})
    own = {part: of(part) for part in rows.own}
    return Layout(source.parent, {key: key for key in rows.classes}, of("train"), own, left_out=left_out)


@dataclass(frozen=True)
class Rows:
    """The rows of a list, sorted by split and class; ten million of them are a few columns of numbers and text."""

    files: "object"  # pyarrow chunked array of text, sorted
    stretches: dict[tuple[str, str], tuple[int, int]]  # split and class -> first row and the one after the last
    repeated: int  # rows that say what another row says

    @property
    def classes(self) -> list[str]:
        return sorted({key for _, key in self.stretches})

    @property
    def own(self) -> list[str]:
        return [part for part in HELD_OUT if any(part == split for split, _ in self.stretches)]

    def paths(self, part: str, key: str) -> Iterator[str]:
        first, last = self.stretches.get((part, key), (0, 0))
        return (path.as_py() for path in self.files.slice(first, last - first))


@functools.lru_cache(maxsize=4)
def _rows(source: Path, size: int, changed: int) -> Rows:
    """The rows of a list, read once for each of its states. Raises BadInput naming a row that cannot be used."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = list_files.read(source, LIST, ["path", "class"])
    if not table.num_rows:
        raise BadInput(f"{source} has no rows; each names an image: path,class")
    for name in ("path", "class"):
        empty = pc.index(table[name], "").as_py()
        if empty >= 0:
            raise BadInput(f"{source}: row {empty + 1} below the column names has no {name}")
    path = pc.replace_substring_regex(_slashes(source, table["path"]), r"(^|/)(\./)+", r"\1")
    split = _split_column(source, table)
    table = pa.table({"split": split, "class": table["class"].cast(pa.string()), "path": path})
    unique = table.group_by(["split", "class", "path"]).aggregate([])
    _refuse_contradiction(source, unique)
    unique = unique.sort_by([(name, "ascending") for name in ("split", "class", "path")])
    counts = unique.group_by(["split", "class"], use_threads=False).aggregate([([], "count_all")])
    ends = itertools.accumulate(counts["count_all"].to_pylist())
    keys = zip(counts["split"].to_pylist(), counts["class"].to_pylist(), strict=True)
    stretches = {
        key: (end - count, end) for key, end, count in zip(keys, ends, counts["count_all"].to_pylist(), strict=True)
    }
    return Rows(unique["path"], stretches, table.num_rows - unique.num_rows)


def _slashes(source: Path, paths):
    """Paths with ``/``, where Windows wrote ``\\`` and there is no file of that very name."""
    import pyarrow.compute as pc

    first = pc.index(pc.match_substring(paths, "\\"), True).as_py()
    if first < 0 or (source.parent / paths[first].as_py()).exists():
        return paths
    return pc.replace_substring(paths, "\\", "/")


def _split_column(source: Path, table):
    """The split of each row, by any of its names; all train where the list does not say."""
    import pyarrow as pa

    if "split" not in table.column_names:
        return pa.chunked_array([pa.array(["train"] * table.num_rows)])
    encoded = table["split"].dictionary_encode().combine_chunks()
    names = encoded.dictionary.to_pylist()
    for name in names:
        if split_called(name) is None:
            row = encoded.indices.index(names.index(name)).as_py()
            raise BadInput(
                f"{source}: row {row + 1} below the column names: a split is train, validation or test, not {name!r}"
            )
    return pa.chunked_array([pa.array([split_called(name) for name in names]).take(encoded.indices)])


def _refuse_contradiction(source: Path, rows) -> None:
    import pyarrow.compute as pc

    counts = rows.group_by(["path"]).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))
    if twice.num_rows:
        path = min(twice["path"].to_pylist()[:1000])
        said = sorted(
            f"{row['class']} ({row['split']})" for row in rows.filter(pc.equal(rows["path"], path)).to_pylist()
        )
        raise BadInput(f"{source} says different things of {path}: {' and '.join(said[:3])}; keep one of these rows")


READERS = {"digits": _folder, "folder": _folder, "imagenet": _imagenet, "caltech256": _caltech256, "list": _list}


def layout(target) -> Layout:
    """Where the images of a target lie. Raises ValueError with one sentence when they do not lie as its reader says."""
    path = Path(target.path)
    if target.reader == "list" and not path.is_file():
        raise BadInput(f"there is no file {path}; it should have the columns path,class")
    if target.reader != "list" and not path.is_dir():
        raise BadInput(f"there is no folder {path}; give the folder that holds train/CLASS/*.jpg, or CLASS/*.jpg")
    return READERS[target.reader](target)
