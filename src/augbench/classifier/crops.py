"""Reads images as the classifier wants them: random crops for training, central squares for evaluation."""

import contextlib
import copy
import functools
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from augbench import images
from augbench.core import collectives, prefetch
from augbench.core.seeds import derive

RATIO = (3 / 4, 4 / 3)  # width / height of random crops
MEMORY = 2 << 30  # bytes; decoded images of a set are kept up to here, else read again in every epoch
READERS = 4  # that read ahead, at most, unless the configuration says how many


def _load(row, at_least: tuple[int, int] | None = None):
    with _named(row):
        return images.load(row, at_least)


@contextlib.contextmanager
def _named(row):
    try:
        yield
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
    needed = math.ceil(image_size / math.sqrt(crop_scale[0]))
    image = _load(row, (needed, needed))
    return _shrink(image, needed) if min(image.size) > needed else image


def random_crop(
    image,
    image_size: int,
    crop_scale: tuple[float, float],
    horizontal_flip: bool,
    key: tuple,
    interpolation: str = "BILINEAR",
):
    """A random crop resized to a square, perhaps mirrored, drawn as torchvision's RandomResizedCrop does.

    ``crop_scale`` bounds the share of the area; ``key`` is what the choice is derived from; ``interpolation`` is a
    member of ``PIL.Image.Resampling``.
    """
    return _cut(image, *_crop(image.size, crop_scale, horizontal_flip, key), image_size, interpolation)


def random_crop_of(
    row,
    image_size: int,
    crop_scale: tuple[float, float],
    horizontal_flip: bool,
    key: tuple,
    interpolation: str = "BILINEAR",
):
    """:func:`random_crop` of a row's image, decoded at a reduced size where the crop has pixels to spare."""
    with _named(row):
        data, name = images.load_bytes(row), images.name_of(row)
    with images.open_image(data, name) as source:
        (width, height), backwards = source.size, source.is_backwards
        box, flip = _crop(source.size, crop_scale, horizontal_flip, key)
        w, h = box[2] - box[0], box[3] - box[1]
        needed = -(-width * image_size // w), -(-height * image_size // h)  # the crop then has image_size pixels a side
        image = source.decode(needed)
    reduction = round(width / image.width)  # the decoder takes 1, 2, 4 or 8
    # The decoder pads the last stored row and column, which is the first one of an image that it stored backwards.
    spare = image.width * reduction - width, image.height * reduction - height
    shift = [pixels if back else 0 for pixels, back in zip(spare, backwards, strict=True)]
    reduced = [(edge + more) / reduction for edge, more in zip(box, 2 * shift, strict=True)]
    return _cut(image, reduced, flip, image_size, interpolation)


def _crop(size: tuple[int, int], crop_scale: tuple[float, float], horizontal_flip: bool, key: tuple):
    """Left, top, right and bottom of a random crop in an image of ``size``, and whether to mirror it."""
    draw = random.Random(derive(*key))
    width, height = size
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
    return (left, top, left + w, top + h), horizontal_flip and draw.random() < 0.5


def _cut(image, box: Sequence[float], flip: bool, image_size: int, interpolation: str):
    """The part of an image in ``box``, whose edges may lie inside pixels, resized to a square."""
    from PIL import Image

    left, top = math.floor(box[0]), math.floor(box[1])
    right, bottom = min(math.ceil(box[2]), image.width), min(math.ceil(box[3]), image.height)
    inside = [box[0] - left, box[1] - top, min(box[2], right) - left, min(box[3], bottom) - top]
    crop = image.crop((left, top, right, bottom))  # first: resizing looks beyond the box, torchvision's does not
    crop = crop.resize((image_size, image_size), Image.Resampling[interpolation], box=inside)
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


def transformed(row, transform: Callable):
    """The image as a network's own transform gives it."""
    return transform(_load(row))


class Batches:
    """Reads batches of an image table; ``prepare(row)`` is kept in memory if all fit, ``finish`` is not.

    A picture is ``finish(prepare(row), epoch, draw)``, or ``fresh(row, epoch, draw)``, if that is given and nothing is
    kept. A request is (epoch, positions, draws): a row may be drawn several times in an epoch, each time by another
    number. Its answer is a uint8 tensor (batch, 3, size, size), where there is a GPU in pinned memory.

    ``workers`` are the processes that read ahead; None: as many as there are cores, up to four, and none for a set that
    fits into memory. What is in memory, threads prepare ahead, as many, where a GPU leaves them the cores.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        prepare: Callable,
        finish: Callable,
        workers: int | None,
        fresh: Callable | None = None,
    ):
        self.rows = images.References(table)
        self.prepare, self.finish, self.fresh, self.workers = prepare, finish, fresh, workers
        self.kept, self.requests, self.loader, self.pinned = None, [], None, collectives.has_gpu()

    def keep(self) -> "Batches":
        """Decode all images now, if they fit into memory."""
        if self._fits:
            order = self.rows.reading_order()
            prepared = {place: self.prepare(self.rows[place]) for place in order}
            self.kept = [prepared[place] for place in range(len(order))]
        return self

    @functools.cached_property
    def _fits(self) -> bool:
        """Whether all images fit into memory, decoded, by a sample of them."""
        sample = self.rows[:: max(1, len(self.rows) // 16)]
        pixels = [math.prod(self.prepare(row).size) for row in sample]
        return 4 * len(self.rows) * sum(pixels) <= MEMORY * len(sample)  # Pillow takes 4 bytes a pixel

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, request):
        import numpy as np

        epoch, positions, draws = request
        pairs = zip(map(int, positions), map(int, draws), strict=True)
        pictures = [np.asarray(self._picture(epoch, position, draw)) for position, draw in pairs]
        batch = _allocate((len(pictures), *pictures[0].shape), self.pinned)
        np.stack(pictures, out=batch.numpy())
        return batch.permute(0, 3, 1, 2)

    def _picture(self, epoch: int, position: int, draw: int):
        if self.fresh and not self.kept:
            return self.fresh(self.rows[position], epoch, draw)
        image = self.kept[position] if self.kept else self.prepare(self.rows[position])
        return self.finish(image, epoch, draw)

    def stream(self, requests: list) -> Iterator:
        """The batches asked for, in that order."""
        readers = default_readers() if self.workers is None else self.workers
        if self.kept or not readers or (self.workers is None and self._fits):
            return prefetch.ahead(self.__getitem__, requests, readers if self.pinned else 0)
        return self._from_processes(requests, readers)

    def _from_processes(self, requests: list, readers: int) -> Iterator:
        from torch.utils.data import DataLoader

        self.requests[:] = requests
        self.loader = self.loader or DataLoader(
            _Caught(copy.copy(self)),  # not self: in a cycle workers would be ended late and in any order
            batch_size=None,
            sampler=self.requests,
            num_workers=readers,
            persistent_workers=True,
            pin_memory=self.pinned,  # by a thread of this process: its copies must not call a GPU
            multiprocessing_context="fork",  # the only one that takes closures; Python 3.14 has another by default
        )
        for batch in self.loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch


def _allocate(shape: tuple, pinned: bool):
    """An uint8 tensor; from pinned memory a GPU copies while the processor goes on."""
    import torch

    return torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)


def default_readers() -> int:
    """How many processes or threads read ahead: this process's share of the job's cores, up to four."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(READERS, cores // collectives.group().num_processes))


def training_batches(
    table: pd.DataFrame,
    image_size: int,
    crop_scale: tuple[float, float],
    horizontal_flip: bool,
    key: tuple,
    workers: int | None,
    augment: Callable = lambda crop, epoch, draw: crop,
    interpolation: str = "BILINEAR",
) -> Batches:
    """Batches of random crops, each drawn from ``key``, its epoch and its draw; ``augment`` changes the crops."""

    def crop(image, epoch: int, draw: int):
        crop = random_crop(image, image_size, crop_scale, horizontal_flip, (*key, epoch, draw), interpolation)
        return augment(crop, epoch, draw)

    def fresh(row, epoch: int, draw: int):
        crop = random_crop_of(row, image_size, crop_scale, horizontal_flip, (*key, epoch, draw), interpolation)
        return augment(crop, epoch, draw)

    prepare = functools.partial(training_image, image_size=image_size, crop_scale=crop_scale)
    return Batches(table, prepare, crop, workers, fresh)


class _Caught:
    """Hands a bad image's error out of a worker as it is: a DataLoader would bury it in a traceback."""

    def __init__(self, batches: Batches):
        self.batches = batches
        self.batches.pinned = False

    def __getitem__(self, request):
        try:
            return self.batches[request]
        except ValueError as error:
            return ValueError(str(error))
