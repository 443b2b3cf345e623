"""What a reader says of a target, and what readers share: names of splits and class folders."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from augbench.core import files
from augbench.core.files import BadInput
from augbench.images import folders
from augbench.images.places import Place

SPLIT_NAMES = {  # what people call the folders and rows of a split, in any case
    "train": ("train", "training", "trn"),
    "validation": ("validation", "val", "valid", "vali", "dev", "development"),
    "test": ("test", "tests", "testing", "tst", "eval", "evaluation", "holdout", "heldout"),
}
HELD_OUT = ("validation", "test")
FILLERS = {"set", "data", "dataset", "split", "images", "image", "imgs", "folder"}  # train_set, Test Images


@dataclass(frozen=True)
class Layout:
    """Where a target's images lie.

    root : what ``image_id`` is relative to; classes : class -> its name as its folder has it, in their order
    train : the images of a class, in any order, of which the training images are drawn, and the validation and test
        images where the target has none of its own; own : splits of its own -> the images of a class. None of these
        looks at a disk before it is asked.
    names : CSV of the classes' names, or None
    left_out : counts of ignored files, by kind (see :mod:`augbench.images.folders`), of what has been looked at so far
    packed : the files that hold the images, where each holds many
    """

    root: Path
    classes: dict[str, str]
    train: Callable[[str], Iterable[Place]]
    own: Mapping[str, Callable[[str], Iterable[Place]]] = field(default_factory=dict)
    names: Path | None = None
    left_out: Counter = field(default_factory=Counter)
    packed: Sequence[str] = ()


class Reader:
    """What the program asks of a reader; this one's answers hold unless a class says otherwise."""

    name: str
    meaning: str  # for the reference of the configuration
    is_built_in = False  # the study makes its target itself: there is nothing to look at before it runs
    known_classes: tuple[str, ...] = ()  # of a target that is made here
    known_splits: tuple[str, ...] = ()  # of its own, likewise
    paper_datasets: Mapping[float, str] = {}  # share to train on: the paper's name in its table of results
    names_files = False  # its source names files, which may be missing

    def known_counts(self, digits) -> tuple[list[int], dict[str, int]]:
        """Of a target that is made here, by the section ``digits``: images of each class to draw splits from, about,
        and images of its own splits."""
        raise NotImplementedError

    def check_path(self, path: Path) -> None:
        """Raise BadInput when there is nothing to read at ``path``."""
        if not path.is_dir():
            raise BadInput(f"there is no folder {path}; give the folder that holds train/CLASS/*.jpg, or CLASS/*.jpg")

    def fits(self, path: Path) -> bool:
        """Whether what lies at ``path`` looks like this reader's and no simpler one's."""
        return False

    def layout(self, target) -> Layout:
        """Where the images of a target (a section of the configuration) lie. Raises ValueError with one sentence when
        they do not lie as this reader says."""
        self.check_path(Path(target.path))
        return self.read(target)

    def read(self, target) -> Layout:
        raise NotImplementedError


def split_called(name: str) -> str | None:
    """The split that a folder or a row of this name belongs to: train, validation, test; None for any other name."""
    words = re.split(r"[\W_0-9]+", unicodedata.normalize("NFKC", name).casefold())
    word = "".join(word for word in words if word not in FILLERS)
    word = re.sub("(set|data)$", "", word)
    return next((split for split, names in SPLIT_NAMES.items() if word in names), None)


def class_folders(folder: Path, left_out: Counter | None = None) -> dict[str, str]:
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


def same_name(name: str) -> str:
    """A name in the one Unicode form that names are compared in: some systems copy ``é`` as two letters."""
    return unicodedata.normalize("NFC", name)
