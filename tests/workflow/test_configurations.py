"""Several configurations in one checkout: whatever was built before, what stands there is of the one in use."""

import itertools
import json
import re

import pytest
import yaml
from PIL import Image

TARGETS = ("results/report.html", "results/{study}/report.html", "results/{study}/tables/table1.csv")


def folder(root, classes=("cat", "dog"), count=12):
    """A target of tiny images whose classes differ in colour."""
    for k, key in enumerate(classes):
        (root / key).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (255 * k, 20 * i, 100)).save(root / key / f"{i}.png")


def study(**changes):
    return {
        "methods": ["none", "more_real"],
        "runs": 1,
        "target": {"reader": "folder", "path": "animals"},
        "dataset": {"train": 0.25, "validation": 0.25, "test": 0.25},
        "classifier": {"model": "small_cnn", "image_size": 8, "batch_size": 8, "max_epochs": 1, "learning_rate": 0.01},
    } | changes
