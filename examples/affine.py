"""A method of one's own, as a script: turned, sheared, scaled and shifted copies of the training images.

    python examples/affine.py results/digits/export/none/folder/train data/affine

It reads CLASS/* from the first folder and writes CLASS/*.png into the second, three copies of each image. A study adds
them with `added: {affine: data/affine}`; with `added: {affine: {script: examples/affine.py}}` augbench calls it itself.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

COPIES = 3  # of each image: a random third of them is added at ratio 1


def affine_copy(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """A copy turned by up to 15 degrees, sheared and scaled by up to 15%, shifted by up to 10% of its size."""
    angle = np.radians(random.uniform(-15, 15))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ (np.eye(2) + random.uniform(-0.15, 0.15, (2, 2)))
    middle = np.array(picture.size) / 2
    shift = middle - matrix @ middle + random.uniform(-0.1, 0.1, 2) * picture.size
    numbers = np.column_stack([matrix, shift]).ravel()
    edge = tuple(np.median(np.asarray(picture)[[0, -1]].reshape(-1, 3), axis=0).astype(int).tolist())
    return picture.transform(picture.size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR, fillcolor=edge)


source, target = map(Path, sys.argv[1:])
random = np.random.default_rng(1)
for path in sorted(source.glob("*/*")):
    (target / path.parent.name).mkdir(parents=True, exist_ok=True)
    picture = Image.open(path).convert("RGB")
    for number in range(COPIES):
        affine_copy(picture, random).save(target / path.parent.name / f"{path.stem}-{number}.png")
