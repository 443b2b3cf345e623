"""Reads images as the classifier wants them: random crops for training, central squares for evaluation."""

import copy
import math
import random
from collections.abc import Callable, Iterator

import pandas as pd

from augbench import images
from augbench.seeds import derive

RATIO = (3 / 4, 4 / 3)  # width / height of random crops
MEMORY = 2 << 30  # bytes; decoded images of a set are kept up to here, else read again in every epoch


def _load(row):
    try:
        return images.load(row)
    except OSError as error:
        raise ValueError(f"cannot read {row.image_id}: {error}") from error


def _shrink(image, shorter: int):
    """``image`` with its shorter side at ``shorter`` pixels, by torchvision's rounding."""
    from PIL import Image

    width, height = image.size
    scale = min(width, height)
    return image.resize((int(shorter * width / scale), int(shorter * height / scale)), Image.Resampling.BILINEAR)


def training_image(row, image_size: int, crop_scale: tuple[float, float]):
    """The image, reduced to where the smallest square crop still has ``image_size`` pixels a side."""
    image = _load(row)
    needed = math.ceil(image_size / math.sqrt(crop_scale[0]))
    return _shrink(image, needed) if min(image.size) > needed else image


def random_crop(image, image_size: int, crop_scale: tuple[float, float], horizontal_flip: bool, key: tuple):
    """A random crop resized to a square, perhaps mirrored, drawn as torchvision's RandomResizedCrop does.

    ``crop_scale`` bounds the share of the area; ``key`` is what the choice is derived from.
    """
    from PIL import Image

    draw = random.Random(derive(*key))
    width, height = image.size
    for _ in range(10):
        area = width * height * draw.uniform(*crop_scale)
        ratio = math.exp(draw.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = draw.randint(0, width - w), draw.randint(0, height - h)
            break
    else:  # the whole image, or its middle when it is too long or too tall
        w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
        left, top = (width - w) // 2, (height - h) // 2
    crop = image.crop((left, top, left + w, top + h)).resize((image_size, image_size), Image.Resampling.BILINEAR)
    flip = horizontal_flip and draw.random() < 0.5
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else crop


def evaluation_image(row, image_size: int, whole_image: bool):
    """The image as it is scored: its central square of ``image_size`` pixels, after resizing to 256 : 224.

    ``whole_image``: all of it, resized, as small images without a margin need it.
    """
    from PIL import Image

    image = _load(row)
    if whole_image:
        return image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    image = _shrink(image, image_size * 256 // 224)
    left, top = (round((side - image_size) / 2) for side in image.size)
    return image.crop((left, top, left + image_size, top + image_size))


class Batches:
    """Reads batches of an image table; ``prepare(row)`` is kept in memory if all fit, ``finish`` is not.

    A request is (epoch, positions); its answer a uint8 tensor (batch, 3, size, size).
    """

    def __init__(self, table: pd.DataFrame, prepare: Callable, finish: Callable, workers: int):
        self.rows = list(table[["image_id", "path", "offset", "length"]].itertuples(index=False))
        self.prepare, self.finish, self.workers = prepare, finish, workers
        self.kept, self.requests, self.loader = None, [], None

    def keep(self) -> "Batches":
        """Decode all images now, if they fit into memory."""
        sample = self.rows[:: max(1, len(self.rows) // 16)]
        pixels = [math.prod(self.prepare(row).size) for row in sample]
        if 4 * len(self.rows) * sum(pixels) <= MEMORY * len(sample):  # Pillow takes 4 bytes a pixel
            self.kept = [self.prepare(row) for row in self.rows]
        return self

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, request):
        import numpy as np
        import torch

        epoch, positions = request
        batch = []
        for position in positions:
            image = self.kept[position] if self.kept else self.prepare(self.rows[position])
            batch.append(np.asarray(self.finish(image, epoch, int(position))))
        return torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)

    def stream(self, requests: list) -> Iterator:
        """The batches asked for, in that order."""
        if self.kept or not self.workers:
            yield from map(self.__getitem__, requests)
            return
        from torch.utils.data import DataLoader

        self.requests[:] = requests
        self.loader = self.loader or DataLoader(
            _Caught(copy.copy(self)),  # not self: in a cycle workers would be ended late and in any order
            batch_size=None,
            sampler=self.requests,
            num_workers=self.workers,
            persistent_workers=True,
        )
        for batch in self.loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch


class _Caught:
    """Hands a bad image's error out of a worker as it is: a DataLoader would bury it in a traceback."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, request):
        try:
            return self.batches[request]
        except ValueError as error:
            return ValueError(str(error))
