"""The optimiser of a fine-tuning: AdamW over all that the parts of a model train, in one process or several."""

from collections.abc import Mapping

import torch

from augbench.core import collectives, resume
from augbench.diffusion.learned_rows import LearnedRows
from augbench.diffusion.trained_model import TrainedModel
from augbench.study.parts import Part

LARGEST_NORM = 1.0  # of a step's gradient; larger ones are scaled down to it


class Optimizer:
    """AdamW with a learning rate for each part.

    A step: backward passes, after the model knows the batch's guides, then :meth:`join`, perhaps unscaling,
    :meth:`clip`, :meth:`step`, :meth:`clear`.
    """

    def __init__(self, model: TrainedModel, rates: Mapping[Part, float]):
        self.model, groups = model, []
        for part, trained in model.groups.items():
            if table := model.tables.get(part.name):
                table.learning_rate = rates[part]
            else:
                groups.append({"params": trained, "lr": rates[part], "weight_decay": part.weight_decay})
        for group in groups:
            for weights in group["params"]:
                collectives.from_first(weights.data)
        # Fused: on a GPU it needs no temporary of the size of all weights, on the CPU it does not loop over them.
        self.dense = torch.optim.AdamW(groups, fused=True) if groups else None

    @property
    def param_groups(self) -> list[dict]:
        """What a ``GradScaler`` wants of an optimiser: where the gradients of this step are."""
        leaves = []
        for trained in self.model.groups.values():
            leaves += [each.active if isinstance(each, LearnedRows) else each for each in trained]
        return [{"params": leaves}]

    def clear(self) -> None:
        """Drop the gradients."""
        for weights in self.param_groups[0]["params"]:
            weights.grad = None

    def join(self) -> None:
        """Give each process the sum of all processes' gradients."""
        if collectives.group().num_processes == 1:
            return
        pending = []
        for weights in self.param_groups[0]["params"]:
            if weights.grad is None:  # of a process that has no image of the batch
                weights.grad = torch.zeros_like(weights)
            pending.append(torch.distributed.all_reduce(weights.grad, async_op=True))
        for each in pending:
            each.wait()

    def clip(self):
        """Scale the gradient down to the largest norm; returns the norm that it had."""
        return torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], LARGEST_NORM)

    def step(self) -> None:
        if self.dense:
            self.dense.step()
        for table in self.model.tables.values():
            table.step()

    def tensors(self) -> dict:
        """Its buffers, but for those of tables, which are part of the model's state."""
        return resume.optimizer_tensors(self.dense) if self.dense else {}

    def restore(self, tensors: Mapping) -> None:
        if self.dense:
            resume.restore_optimizer(self.dense, tensors)
