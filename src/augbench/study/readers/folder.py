"""Images in class folders, perhaps below folders of splits, told apart without guessing."""

import difflib
import functools
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from augbench.core import files
from augbench.core.files import BadInput
from augbench.images import folders
from augbench.study.readers.layout import Layout, Reader, class_folders, same_name, split_called


class Folder(Reader):
    name = "folder"
    meaning = (
        "train/CLASS, and val/CLASS and test/CLASS where there are such, by any of their usual names, or CLASS alone"
    )

    def fits(self, path):
        return True

    def read(self, target):
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
            classes = class_folders(path, left_out)
            return Layout(path, classes, lambda key: folders.images(path / key, left_out), left_out=left_out)
        for top in set(tops) - set(splits.values()):
            left_out[f"folder {files.printable(top.name)}"] += 1
        train = splits.pop("train")
        classes, own = class_folders(train, left_out), {}
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
            f"{target.path} has folders named like splits ({seen}) and others ({unknown}): write `folders: splits` "
            "into `target` to use the splits alone, or `folders: classes` if all of them are classes"
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


def _class_files(places: Mapping[str, Path], left_out: Counter, key: str) -> Iterable[Path]:
    """The images of a class; none where a held-out split has none of it."""
    return folders.images(places[key], left_out) if key in places else ()
