"""A moving average of a network's weights, which is scored in their place."""

import contextlib
from collections.abc import Iterator, Mapping

import torch

from augbench.classifier.networks import Network


class Average:
    """The exponential moving average of all tensors that training changes. ``values`` are its tensors by name.

    In the first steps it forgets faster than its ``decay`` says, as (1 + step) / (10 + step), which is TensorFlow's
    rule: else it would long remember where training began.
    """

    def __init__(self, network: Network, decay: float):
        self.network, self.decay = network, decay
        self.values = {name: tensor.detach().clone() for name, tensor in network.state().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in self.network.state().items():
            if tensor.is_floating_point():
                self.values[name].lerp_(tensor, 1 - decay)
            else:  # a counter
                self.values[name].copy_(tensor)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the network has these weights."""
        own = {name: tensor.detach().clone() for name, tensor in self.network.state().items()}
        self.network.load(self.values)
        try:
            yield
        finally:
            self.network.load(own)

    def restore(self, values: Mapping) -> None:
        for name, tensor in values.items():
            self.values[name].copy_(tensor)
