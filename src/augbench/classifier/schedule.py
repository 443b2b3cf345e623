"""In which order images are seen, and how many by which step."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from augbench.core.seeds import generator


def epoch_order(count: int, batch_size: int, seed: int, epoch: int, least: int = 2, whole: bool = False) -> list:
    """All positions in random order, cut into batches of at least ``least``; a single image has no variance.

    ``whole`` : batches of ``batch_size`` alone, what is left after the last one is left out; all are one batch where
    they make no whole one.
    """
    order = generator(seed, "classifier", "order", epoch).permutation(count)
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if whole:
        return batches[: max(1, count // batch_size)]
    if len(batches) > 1 and len(batches[-1]) < least:
        batches[-2:] = [order[-len(batches[-2]) - len(batches[-1]) :]]
    return batches


@dataclass(frozen=True)
class Epochs:
    """Epoch after epoch of ``count`` images in batches, see :func:`epoch_order`; steps are counted from 0."""

    count: int
    batch_size: int
    seed: int
    least: int = 2
    whole: bool = False

    @property
    def steps(self) -> int:
        """Of an epoch."""
        full, rest = divmod(self.count, self.batch_size)
        return max(1, full + (rest >= self.least and not self.whole))

    @property
    def images(self) -> int:
        """Seen in an epoch."""
        return min(self.count, self.steps * self.batch_size) if self.whole else self.count

    def images_until(self, step: int) -> int:
        """Images that are seen before a step."""
        epochs, rest = divmod(step, self.steps)
        return epochs * self.images + min(rest * self.batch_size, self.images)

    def batches(self, begin: int, end: int) -> Iterator[tuple[int, int, list]]:
        """Epoch (from 1), place in it and positions of each batch from step ``begin`` to before ``end``."""
        for epoch in range(begin // self.steps, math.ceil(end / self.steps)):
            first = epoch * self.steps
            order = epoch_order(self.count, self.batch_size, self.seed, epoch + 1, self.least, self.whole)
            for place in range(max(0, begin - first), min(self.steps, end - first)):
                yield epoch + 1, place, order[place]
