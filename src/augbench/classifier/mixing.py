"""Which images an epoch has, and what each weighs in the loss, where added images are mixed in by a share."""

import numpy as np

from augbench.core.seeds import generator
from augbench.study.recipes import Mix


class Mixing:
    """Real images followed by added ones, as a method's ``mix`` says; without one all are alike.

    ``labels`` int64 (n,) are those of all images, of which the last ``added`` are added ones. Arrays alone, no work
    image by image: there may be millions.
    """

    def __init__(self, mix: Mix | None, labels: np.ndarray, added: int, seed: int):
        self.real, self.seed, self.probability = len(labels) - added, seed, mix.probability if mix else None
        self.weights = mix.loss_weights(self.real, added) if mix else None
        self.size = int(mix.epoch_size(self.real, added)) if mix else len(labels)
        if self.probability is not None:
            self.labels = labels[: self.real]
            classes = np.arange(labels.max(initial=0) + 1)
            order = np.argsort(labels[self.real :], kind="stable")
            self.added = self.real + order  # positions, class by class
            self.begins = np.searchsorted(labels[self.added], classes)
            self.counts = np.bincount(labels[self.real :], minlength=len(classes))

    def positions(self, epoch: int) -> np.ndarray:
        """The images of an epoch, int64 (``size``,): where one is replaced, an added one of its class in its place. A
        class without added images keeps its own."""
        positions = np.arange(self.size)
        if self.probability is None:
            return positions
        random = generator(self.seed, "classifier", "mix", epoch)
        replaced, share = random.random(self.size) < self.probability, random.random(self.size)
        counts = self.counts[self.labels]
        replaced &= counts > 0
        drawn = self.begins[self.labels] + (share * counts).astype(np.int64)
        positions[replaced] = self.added[drawn[replaced]]
        return positions

    def weights_of(self, positions: np.ndarray) -> np.ndarray | None:
        """What images weigh in the loss, float32 (n,); None where all weigh the same."""
        if self.weights is None:
            return None
        return np.where(positions < self.real, *self.weights).astype(np.float32)
