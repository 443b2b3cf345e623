"""How long a classifier is trained: a class for each value of ``classifier: {budget: ...}``, and the table of them.

Nothing else in the program compares a budget with a string: it asks the object. A new one is a class here and a row of
``BUDGETS``. A training is divided into rounds, after each of which the validation images are scored; the best round's
checkpoint is the one that is kept. ``settings`` is the section ``classifier`` of the configuration.
"""

import math
from collections.abc import Sequence

VALIDATIONS = 50  # of a training of a fixed number of steps, at equal distances
USUAL_EPOCHS = 100  # until early stopping, say


class Budget:
    """What the program asks of a budget.

    ``accuracies`` are those on the validation images, one per round that is over; steps are counted from 0.
    """

    name: str
    meaning: str  # for the reference of the configuration
    unit: str  # in which the history counts, and training curves
    has_whole_batches = False  # what is left of an epoch after its last whole batch is left out
    account: str  # for the caption of Table 1: what is equal for all methods

    def check(self, settings) -> None:
        """Raises ValueError where keys of the section do not go with the budget."""

    def rounds(self, settings) -> int:
        """The most rounds of a training."""
        raise NotImplementedError

    def end(self, number: int, steps_per_epoch: int, settings) -> int:
        """Steps when round ``number`` (from 1) is over; 0 for round 0."""
        raise NotImplementedError

    def progress(self, number: int, end: int) -> int:
        """What the history calls the end of round ``number``, at step ``end``: in the budget's unit."""
        raise NotImplementedError

    def learning_rate(self, accuracies: Sequence[float], step: int, settings) -> float:
        raise NotImplementedError

    def is_over(self, accuracies: Sequence[float], settings) -> bool:
        """Whether the training is complete; one that is not may still end with its last round."""
        raise NotImplementedError

    def expected_epochs(self, images: float, settings) -> float:
        """Epochs of ``images`` images each that a training is likely to take."""
        raise NotImplementedError


class UntilPlateau(Budget):
    name = "epochs"
    meaning = "until validation accuracy stops rising, at most `max_epochs`: more steps for larger sets (the paper's)"
    unit = "epoch"
    account = (
        "at equal epochs, a method that adds images takes more steps than the target data alone. Early stopping on "
        "validation accuracy ends the training of every method."
    )

    def check(self, settings):
        if settings.steps is not None:
            raise ValueError("steps are counted with `budget: steps` alone: write it, or leave out `steps`")

    def rounds(self, settings):
        return settings.max_epochs

    def end(self, number, steps_per_epoch, settings):
        return number * steps_per_epoch

    def progress(self, number, end):
        return number

    def learning_rate(self, accuracies, step, settings):
        return plateau(accuracies, settings.learning_rate, settings.patience, settings.stop_after)[0]

    def is_over(self, accuracies, settings):
        return plateau(accuracies, settings.learning_rate, settings.patience, settings.stop_after)[2]

    def expected_epochs(self, images, settings):
        return min(settings.max_epochs, USUAL_EPOCHS)


class FixedSteps(Budget):
    """The same optimiser steps on whole batches for every method, however many images it has; no early stopping."""

    name = "steps"
    meaning = (
        f"`steps` optimiser steps for every method, the learning rate falling to 0 along a cosine, {VALIDATIONS} "
        "validations at equal distances; max_epochs, patience and stop_after are not used"
    )
    unit = "step"
    has_whole_batches = True
    account = (
        "every method is trained for the same number of steps, without early stopping: the fewer images it has, the "
        "more epochs."
    )

    def check(self, settings):
        if settings.steps is None:
            raise ValueError("budget: steps needs their number, e.g. `steps: 20000`")

    def rounds(self, settings):
        return min(VALIDATIONS, settings.steps)

    def end(self, number, steps_per_epoch, settings):
        return number * settings.steps // self.rounds(settings)

    def progress(self, number, end):
        return end

    def learning_rate(self, accuracies, step, settings):
        return settings.learning_rate * (1 + math.cos(math.pi * step / settings.steps)) / 2

    def is_over(self, accuracies, settings):
        return len(accuracies) == self.rounds(settings)

    def expected_epochs(self, images, settings):
        return settings.steps * settings.batch_size / max(settings.batch_size, images)


BUDGETS: dict[str, Budget] = {budget.name: budget for budget in (UntilPlateau(), FixedSteps())}


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
