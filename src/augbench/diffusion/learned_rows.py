"""A table of which each image trains one row, by AdamW: its memory and transfers are those of the batch's rows.

AdamW without weight decay changes a row without a gradient too, by the momentum that is left of earlier ones. Here such
steps of a row are made when it is next read: the same operations on the same numbers, and so the results of AdamW over
the whole table, bit by bit. Several processes each keep an equal part of the rows.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.adamw import adamw

from augbench.core import collectives

BETAS, EPSILON = (0.9, 0.999), 1e-8  # AdamW's defaults
ON_DEVICE = 2**30  # bytes of a table with its moments that stay on the GPU; larger ones are kept in the host's memory
CHUNK = 256  # rows that are brought up to date at a time


class LearnedRows(torch.nn.Module):
    """A table (rows, ...) that begins as the rows of ``start``, each ``repeats`` times.

    :meth:`begin` names the rows that the next batch reads, ``self[numbers]`` reads them, and :meth:`step` trains them
    by the gradients that they have then. ``learning_rate`` must not change in between.
    """

    table: torch.Tensor
    active: Any
    numbers: Any
    _own: Any
    _places: Any
    _state: Any

    def __init__(self, start: torch.Tensor, repeats: int = 1):
        super().__init__()
        group = collectives.group()
        self.process, self.processes = group.process_index, group.num_processes
        self.device, self.count = start.device, len(start) * repeats
        self.learning_rate = 0.0
        start = collectives.from_first(start.detach().float().contiguous())
        mine = torch.arange(self.process, self.count, self.processes) // repeats
        size = 3 * len(mine) * start[0].nbytes
        home = self.device if size <= ON_DEVICE else torch.device("cpu")
        self.register_buffer("table", torch.empty((len(mine), *start.shape[1:]), device=home))
        for values, rows in zip(self.table.split(CHUNK), mine.split(CHUNK), strict=True):
            values.copy_(start[rows.to(self.device)])
        self.first, self.second = torch.zeros_like(self.table), torch.zeros_like(self.table)  # moments
        self.steps = torch.zeros(len(mine), dtype=torch.int64)  # that each row has made; 0: it never had a gradient
        self.made = 0  # steps of the training
        self.end()

    def _apply(self, *_, **__):
        """It stays where it is when its model moves."""
        return self

    def __getitem__(self, numbers):
        if self.active is None:
            return self.table[numbers]
        return self.active[torch.searchsorted(self.numbers, numbers)]

    def begin(self, numbers: torch.Tensor) -> None:
        """Let the rows ``numbers`` (any order, repeated) be read and trained. All processes name the same."""
        rows = numbers.unique().cpu()
        own = (rows % self.processes == self.process).nonzero().flatten()
        self._places, self._own = rows[own] // self.processes, own.to(self.device)
        self._state = self._up_to_date(self._places)
        self.numbers = rows.to(self.device)
        self.active = self._of_all(self._state[0]).requires_grad_()

    def step(self) -> None:
        """AdamW's step of the training, by the gradients of the rows that :meth:`begin` named."""
        count = torch.full((), float(self.made), device=self.device)
        values, first, second = self._state
        self._adamw(values, first, second, self.active.grad[self._own], count)
        self.made += 1
        self._keep(self._places, self._state)

    def end(self) -> None:
        """Drop the batch's rows and their gradients."""
        self.numbers = self.active = None  # numbers (n,) and values (n, ...) of the batch's rows
        # Which of them this process keeps, where in its table, and their values and moments.
        self._own = self._places = self._state = None

    def whole(self) -> torch.Tensor:
        """The table (rows, ...) after all steps, in the first process; what others get is not complete.

        All processes call it. In a single one it is the table's own memory.
        """
        behind = ((self.steps > 0) & (self.steps < self.made)).nonzero().flatten()
        for places in behind[self.steps[behind].argsort(stable=True)].split(CHUNK):  # of similar gaps
            self._keep(places, self._up_to_date(places))
        return self._gathered(self.table)

    def state(self) -> dict[str, torch.Tensor]:
        """What :meth:`restore` takes, in the first process; all call it."""
        steps = self._gathered(self.steps)
        tensors = {name: self._gathered(getattr(self, name)) for name in ("table", "first", "second")}
        return tensors | {"steps": steps, "made": torch.tensor(self.made)}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from :meth:`state`, of a training of as many processes or of another number."""
        for name in ("table", "first", "second", "steps"):
            getattr(self, name).copy_(state[name][self.process :: self.processes])
        self.made = int(state["made"])

    def _up_to_date(self, places: torch.Tensor) -> list[torch.Tensor]:
        """Values and moments of the rows in these places of this process's table, with the steps that they missed."""
        steps, order = self.steps[places].sort(stable=True)
        home = places[order].to(self.table.device)
        state = [tensor[home].to(self.device) for tensor in (self.table, self.first, self.second)]
        never = int((steps == 0).sum())  # had a gradient: nothing moves these
        begin = int(steps[never]) if never < len(steps) else self.made
        nothing, count = torch.zeros_like(state[0]), torch.full((), float(begin), device=self.device)
        for step in range(begin, self.made):
            behind = slice(never, int(torch.searchsorted(steps, step, right=True)))
            values, first, second, gradients = (tensor[behind] for tensor in (*state, nothing))
            self._adamw(values, first, second, gradients, count)
        back = order.argsort().to(self.device)
        return [tensor[back] for tensor in state]

    def _adamw(self, values, first, second, gradients, count) -> None:
        """A step in place, after ``count`` steps, which is increased."""
        adamw(
            [values], [gradients], [first], [second], [], [count], fused=True, amsgrad=False, beta1=BETAS[0],
            beta2=BETAS[1], lr=self.learning_rate, weight_decay=0.0, eps=EPSILON, maximize=False,
        )  # fmt: skip

    def _keep(self, places: torch.Tensor, state: list[torch.Tensor]) -> None:
        home = places.to(self.table.device)
        for tensor, rows in zip((self.table, self.first, self.second), state, strict=True):
            tensor[home] = rows.to(tensor.device)
        self.steps[places] = self.made

    def _of_all(self, rows: torch.Tensor) -> torch.Tensor:
        """The values of the batch's rows, in all processes, from those that this one keeps."""
        if self.processes == 1:
            return rows.clone()
        values = torch.zeros((len(self.numbers), *self.table.shape[1:]), device=self.device)
        values[self._own] = rows
        return collectives.total(values)

    def _gathered(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, in the host's memory of the first; a single process's are its own."""
        if self.processes == 1:
            return tensor
        joined = torch.empty((self.count if not self.process else 0, *tensor.shape[1:]), dtype=tensor.dtype)
        for rows in torch.arange(self.count).split(CHUNK):
            own = (rows % self.processes == self.process).nonzero().flatten()
            mine = tensor[(rows[own] // self.processes).to(tensor.device)].to(self.device)
            shared = torch.zeros((len(rows), *tensor.shape[1:]), dtype=tensor.dtype, device=self.device)
            shared[own.to(self.device)] = mine
            collectives.total(shared)
            if not self.process:
                joined[rows] = shared.cpu()
        return joined
