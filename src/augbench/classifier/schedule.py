"""When the learning rate is lowered, when training stops (early stopping), and in which order images are seen."""

import math
from collections.abc import Sequence

from augbench.core.seeds import generator


def plateau(
    accuracies: Sequence[float], learning_rate: float, patience: int, stop_after: int
) -> tuple[float, int, bool]:
    """What a sequence of validation accuracies, one per epoch, asks for next.

    Returns the learning rate of the next epoch (divided by 10 after every ``patience`` epochs without a
    new best), the best epoch so far (from 1, the first of equals; 0 before any) and whether to stop
    (``stop_after`` epochs without a new best).
    """
    best, best_epoch, reductions = -math.inf, 0, 0
    for epoch, accuracy in enumerate(accuracies, 1):
        if accuracy > best:
            best, best_epoch = accuracy, epoch
        elif (epoch - best_epoch) % patience == 0:
            reductions += 1
    return learning_rate / 10**reductions, best_epoch, len(accuracies) - best_epoch >= stop_after


def epoch_order(count: int, batch_size: int, seed: int, epoch: int, least: int = 2) -> list:
    """All positions in random order, cut into batches of at least ``least``; a single image has no variance."""
    order = generator(seed, "classifier", "order", epoch).permutation(count)
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if len(batches) > 1 and len(batches[-1]) < least:
        batches[-2:] = [order[-len(batches[-2]) - len(batches[-1]) :]]
    return batches
