"""Transforms of torchvision that draw from seeds of their own: not from a generator that a process has but once, from
which threads would draw in any order."""

from collections.abc import Callable

import torch
from torch.overrides import TorchFunctionMode

from augbench.core.seeds import derive
from augbench.study.augments import Augment

DRAWS = {torch.rand, torch.randint, torch._sample_dirichlet}  # by which the transforms draw


class DrawnFrom(TorchFunctionMode):
    """Within it, this thread's random numbers come from a ``generator`` on the CPU, wherever the images are."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in DRAWS:
            kwargs = kwargs | {"generator": self.generator}
        return func(*args, **kwargs)


def of_images(augment: Augment | None, key: tuple) -> Callable:
    """A function (picture, *further key) -> picture; each choice is drawn from the whole key."""
    if augment is None or augment.mixes_batches:
        return lambda image, *further: image
    return _seeded(augment.transform(1), key)


def of_batches(augment: Augment | None, classes: int, key: tuple) -> Callable | None:
    """A function ((images, labels), epoch, place, process) -> images and the weights of their labels, float (b,
    ``classes``); None for an augment that takes no batches."""
    if augment is None or not augment.mixes_batches:
        return None
    mixed = _seeded(augment.transform(classes), key)
    return lambda batch, epoch, place, process: mixed(batch, epoch, place, process)


def _seeded(transform: Callable, key: tuple) -> Callable:
    def augmented(sample, *further):
        # It keeps 32 bits of the seed: of millions of images some share their draws, which does no harm, and a state
        # that all bits fill would take twenty times as long.
        with DrawnFrom(torch.Generator().manual_seed(derive(*key, "augment", *further))):
            return transform(sample)

    return augmented
