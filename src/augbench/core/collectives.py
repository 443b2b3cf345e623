"""What the processes of one training do together."""

from typing import Any

from augbench.core import processes


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def group() -> Any:
    """Which of the processes this one is: accelerate's ``process_index``, ``num_processes``, ``device``, ..."""
    from accelerate import PartialState

    processes.forget_launchers()
    return PartialState(cpu=not has_gpu())


def total(value):
    """The sum of a tensor over all processes."""
    import torch

    if group().num_processes > 1:
        torch.distributed.all_reduce(value)
    return value


def from_first(value):
    """The first process's tensor, in all processes."""
    import torch

    if group().num_processes > 1:
        torch.distributed.broadcast(value, 0)
    return value


def any_process(mine: bool) -> bool:
    """Whether any process says so: what one process does alone, the others would wait for in vain."""
    import torch

    if group().num_processes == 1:  # without a word to the GPU, which would first end what it has to do
        return mine
    return total(torch.tensor([float(mine)], device=group().device)).item() > 0
