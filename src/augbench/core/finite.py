"""NaN and infinite numbers are an error where a model first gives them, and never become a result."""

from collections.abc import Sequence


def check(values, what: str, names: Sequence[str], advice: str = "") -> None:
    """Raise RuntimeError, naming the first item concerned, unless all numbers are finite.

    Parameters
    ----------
    values : array or tensor whose first axis are the items; names : of the items
    what : that gave the numbers, e.g. ``the VAE``; advice : what to do, for the end of the sentence
    """
    bad = bad_items(values)
    if bad:
        others = f" and {len(bad) - 1} others" if len(bad) > 1 else ""
        end = f"; {advice}" if advice else ""
        raise RuntimeError(f"{what} gives NaN or infinite numbers for {names[bad[0]]}{others}{end}")


def bad_items(values) -> list[int]:
    """Positions along the first axis that hold NaN or infinity."""
    if hasattr(values, "detach"):
        import torch

        good = torch.isfinite(values.detach()).flatten(1).all(1) if values.ndim > 1 else torch.isfinite(values.detach())
        return (~good).nonzero().flatten().tolist()
    import numpy as np

    good = np.isfinite(np.asarray(values))
    return np.flatnonzero(~good.reshape(len(good), -1).all(1)).tolist() if len(good) else []


def check_weights(module, what: str, advice: str) -> None:
    """Raise RuntimeError, naming the tensor, unless all weights of a torch module are finite.

    Of a model that was trained, and of one whose verdict does not show it: NaN never exceeds a threshold.
    """
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise RuntimeError(f"{what} has NaN or infinite weights in {name}; {advice}")
