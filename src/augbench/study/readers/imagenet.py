"""ImageNet as ILSVRC2012 packs it."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from augbench.core import list_files, package_data
from augbench.core.files import BadInput
from augbench.images import folders
from augbench.study.readers.layout import Layout, Reader, class_folders

SYNSETS = package_data.bundled("imagenet_synsets.csv")  # WordNet's names of ImageNet's classes
WNID = r"n\d{8}"  # its class folders


class ImageNet(Reader):
    name = "imagenet"
    paper_datasets = {0.1: "imagenet10", 0.9: "imagenet"}
    meaning = "ILSVRC2012, train/WNID and val, which is the test split"

    def fits(self, path):
        """ImageNet's ``val`` is its test set, anybody else's a validation set: only WordNet's numbers as names of the
        classes, or a ``val`` without classes, are ImageNet's."""
        if [(path / name).is_dir() for name in ("train", "val", "test")] != [True, True, False]:
            return False
        numbered = all(re.fullmatch(WNID, key.name) for key in folders.subfolders(path / "train"))
        return numbered or not folders.subfolders(path / "val")

    def read(self, target):
        """ILSVRC2012: ``train/WNID/*.JPEG``, and ``val`` with a folder for each class or, with ``ground_truth``, flat.

        The test images are those of ``val``, as in the paper.
        """
        path = Path(target.path)
        for name in ("train", "val"):
            if not (path / name).is_dir():
                raise BadInput(f"{path} has no folder {name!r}; ImageNet is train/WNID/*.JPEG and val")
        classes = class_folders(path / "train")
        if folders.subfolders(path / "val"):
            test = lambda key: folders.images(path / "val" / key)  # noqa: E731
        elif target.ground_truth:
            groups = functools.cache(
                lambda: _ground_truth(Path(target.ground_truth), sorted(folders.images(path / "val")))
            )
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
        shown = {row["ImageId"]: row["PredictionString"].partition(" ")[0] for row in table.to_pylist()}
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
        shown = {file.stem: wnids[int(number)] for file, number in zip(files, numbers, strict=True)}
    groups: dict[str, list[Path]] = {}
    for file in files:
        if file.stem not in shown:
            raise BadInput(f"{source} does not say what {file} shows")
        groups.setdefault(shown[file.stem], []).append(file)
    return groups
