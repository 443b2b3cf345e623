"""What is done where a GPU's memory does not suffice: the same work on fewer items at a time."""

from collections.abc import Callable, Sequence
from typing import Any


class Portions:
    """Computes on portions of a batch, half as large from then on whenever the GPU's memory did not suffice.

    Parameters
    ----------
    size : items of a portion, at first
    what : they are, for messages, e.g. ``images to decode``
    advice : what to do where a single item is too much, for the end of the sentence
    """

    def __init__(self, size: int, what: str, advice: str):
        self.size, self.what, self.advice = size, what, advice

    def __call__(self, compute: Callable, items: Sequence) -> list:
        """``compute(portion)`` for one portion of the items after the other.

        How items are cut may change low bits of their results, as the make-up of any batch does. Raises RuntimeError
        when the GPU's memory does not suffice for one item.
        """
        results, start = [], 0
        while start < len(items):
            portion = items[start : start + self.size]
            result, is_done = attempt(lambda portion=portion: compute(portion))
            if is_done:
                results.append(result)
                start += len(portion)
            else:
                self._halve(len(portion))
        return results

    def _halve(self, tried: int) -> None:
        import torch

        torch.cuda.empty_cache()
        if tried == 1:
            raise RuntimeError(f"the GPU's memory does not suffice for one of the {self.what}; {self.advice}")
        self.size = tried // 2
        print(f"the GPU's memory does not suffice for {tried} {self.what}: going on with {self.size}", flush=True)


def attempt(compute: Callable) -> tuple[Any, bool]:
    """``compute()``, and whether the GPU's memory sufficed; then nothing refers any more to what it had allocated."""
    import torch

    try:
        return compute(), True
    except torch.OutOfMemoryError:
        return None, False
