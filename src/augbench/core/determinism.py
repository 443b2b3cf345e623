"""Computation on a GPU that gives the same bits each time."""

import os


def require(*, strict: bool) -> None:
    """Let a GPU use algorithms whose results do not vary from run to run; on the CPU all are such.

    To be called before anything is computed on the GPU: the gradients of attention and of matrix products vary
    otherwise. Where an operation has no such algorithm it raises RuntimeError, or, unless ``strict``, warns.
    """
    import torch

    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=not strict)
        # Filling each new tensor would cost a pass over it.
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (unknown to type checkers)
