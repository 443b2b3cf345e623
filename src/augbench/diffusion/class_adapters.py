"""Adapters of which each class has its own (DataDream): a model has one at a time, the others wait beside it."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from augbench.diffusion.candidates import of_class
from augbench.diffusion.optimizer import Optimizer
from augbench.diffusion.trained_model import TrainedModel


class Together:
    """All classes train the same: batches are cut across them."""

    def __init__(self, model: TrainedModel, optimizer: Optimizer):
        self.model, self.optimizer = model, optimizer

    def batches(self, order: np.ndarray, classes: Sequence[str], size: int) -> list[np.ndarray]:
        """Positions in this order, in batches; ``classes`` has the class of each position."""
        return _cut(order, size)

    def turn_to(self, key: str) -> None:
        """Let the next steps and losses be of a class."""

    def candidate(self) -> dict:
        """What was trained, see :meth:`TrainedModel.candidate`."""
        return self.model.candidate()

    def state(self) -> dict[str, dict]:
        """Named groups of tensors, from which :meth:`restore` goes on."""
        return {"trained": self.model.state(), "optimizer": self.optimizer.tensors()}

    def restore(self, groups: Mapping[str, Mapping]) -> None:
        self.model.restore(groups["trained"])
        self.optimizer.restore(groups["optimizer"])


class ClassByClass(Together):
    """Each class trains its own, in batches of its images alone. What is not the present class's lies in the host's
    memory, weights and AdamW's moments. Names of tensors are ``CLASS/NAME``."""

    def __init__(self, model: TrainedModel, optimizer: Optimizer, keys: Iterable[str]):
        super().__init__(model, optimizer)
        start = self._present()
        self.waiting = dict.fromkeys(keys, start)  # nothing changes in place what lies there
        self.key = next(iter(self.waiting))

    def batches(self, order, classes, size):
        own = np.asarray(classes)[order]
        return [batch for key in self.waiting for batch in _cut(order[own == key], size)]

    def turn_to(self, key):
        if key != self.key:
            self.waiting[self.key] = self._present()
            self._take(key)

    def candidate(self):
        tensors = {}
        for key in self.waiting:
            self.turn_to(key)
            tensors |= {f"{key}/{name}": value.to("cpu", copy=True) for name, value in self.model.candidate().items()}
        return tensors

    def state(self):
        self.waiting[self.key] = self._present()
        groups = {}
        for key, own in self.waiting.items():
            for group, tensors in own.items():
                groups.setdefault(group, {}).update({f"{key}/{name}": value for name, value in tensors.items()})
        return groups

    def restore(self, groups):
        own = {key: {group: of_class(tensors, key) for group, tensors in groups.items()} for key in self.waiting}
        self.waiting = own
        self._take(self.key)

    def _present(self) -> dict[str, dict]:
        """A copy of the present class's, in the host's memory."""
        groups = super().state().items()
        return {
            group: {name: value.detach().to("cpu", copy=True) for name, value in own.items()} for group, own in groups
        }

    def _take(self, key: str) -> None:
        super().restore(self.waiting[key])
        self.key = key


def _cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[start : start + size] for start in range(0, len(order), size)]
