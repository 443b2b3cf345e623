"""Caltech256 as it is published."""

import re
from pathlib import Path

from augbench.images import folders
from augbench.study.readers.layout import Layout, Reader

CATEGORIES = "256_ObjectCategories"
CLUTTER = "257.clutter"  # no class


class Caltech256(Reader):
    name = "caltech256"
    paper_datasets = {0.8: "caltech256"}
    meaning = CATEGORIES

    def fits(self, path):
        return (path / CATEGORIES).is_dir()

    def read(self, target):
        """``256_ObjectCategories/NNN.name``, or the folder above it, without the clutter; names as provided."""
        path = Path(target.path)
        inner = path / CATEGORIES
        root = inner if inner.is_dir() else path
        names = [folder.name for folder in folders.subfolders(root) if folder.name != CLUTTER]
        classes = {name: re.sub(r"^[0-9]+\.|-101$", "", name) for name in names}
        return Layout(root, classes, lambda key: folders.images(root / key))
