"""How the learning rate of a classifier changes: a class for each value of ``classifier: {schedule: ...}``, and the
table of them.

Nothing else in the program compares a schedule with a string: it asks the object. A new one is a class here and a row
of ``SCHEDULES``. ``settings`` is the section ``classifier`` of the configuration.
"""

import math
from collections.abc import Sequence


class Schedule:
    """What the program asks of a schedule.

    ``accuracies`` are those on the validation images, one per round that is over; steps are counted from 0.
    """

    name: str
    meaning: str  # for the reference of the configuration
    stops_early = False  # the accuracies say when a training is complete

    def unwarmed(self, accuracies: Sequence[float], step: int, steps: int, settings) -> float:
        """The learning rate at a step of a training of at most ``steps``, without warm-up."""
        raise NotImplementedError

    def is_over(self, accuracies: Sequence[float], rounds: int, settings) -> bool:
        """Whether a training of at most ``rounds`` is complete; one that is not may still end with its last round."""
        return len(accuracies) == rounds

    def rate(self, accuracies: Sequence[float], step: int, steps: int, settings) -> float:
        """The learning rate at a step, warm-up included: it rises linearly over the first ``warmup`` steps."""
        rate = self.unwarmed(accuracies, step, steps, settings)
        return rate * (step + 1) / settings.warmup if step < settings.warmup else rate


class Plateau(Schedule):
    name = "plateau"
    meaning = "divided by 10 after `patience` epochs without better validation accuracy, the end after `stop_after`"
    stops_early = True

    def unwarmed(self, accuracies, step, steps, settings):
        return plateau(accuracies, settings.learning_rate, settings.patience, settings.stop_after)[0]

    def is_over(self, accuracies, rounds, settings):
        return plateau(accuracies, settings.learning_rate, settings.patience, settings.stop_after)[2]


class Cosine(Schedule):
    name = "cosine"
    meaning = "falling to 0 along a cosine over all `max_epochs` or `steps`, without early stopping"

    def unwarmed(self, accuracies, step, steps, settings):
        return settings.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2


SCHEDULES: dict[str, Schedule] = {schedule.name: schedule for schedule in (Plateau(), Cosine())}


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
