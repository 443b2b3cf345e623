"""How long a classifier is trained: a class for each value of ``classifier: {budget: ...}``, and the table of them.

Nothing else in the program compares a budget with a string: it asks the object. A new one is a class here and a row of
``BUDGETS``. A training is divided into rounds, after each of which the validation images are scored; the best round's
checkpoint is the one that is kept. ``settings`` is the section ``classifier`` of the configuration.
"""

VALIDATIONS = 50  # of a training of a fixed number of steps, at equal distances
USUAL_EPOCHS = 100  # until early stopping, say


class Budget:
    """What the program asks of a budget; steps are counted from 0."""

    name: str
    meaning: str  # for the reference of the configuration
    unit: str  # in which the history counts, and training curves
    has_whole_batches = False  # what is left of an epoch after its last whole batch is left out
    schedules: tuple[str, ...]  # those of the learning rate that go with it, by name; the first unless another is named
    account: str  # for the caption of Table 1: what is equal for all methods

    def check(self, settings) -> None:
        """Raises ValueError where keys of the section do not go with the budget."""
        if settings.schedule and settings.schedule.name not in self.schedules:
            raise ValueError(f"budget: {self.name} goes with `schedule: {' or '.join(self.schedules)}` alone")

    def rounds(self, settings) -> int:
        """The most rounds of a training."""
        raise NotImplementedError

    def end(self, number: int, steps_per_epoch: int, settings) -> int:
        """Steps when round ``number`` (from 1) is over; 0 for round 0."""
        raise NotImplementedError

    def progress(self, number: int, end: int) -> int:
        """What the history calls the end of round ``number``, at step ``end``: in the budget's unit."""
        raise NotImplementedError

    def most_steps(self, steps_per_epoch: int, settings) -> int:
        """Steps of the longest training."""
        return self.end(self.rounds(settings), steps_per_epoch, settings)

    def expected_epochs(self, images: float, settings) -> float:
        """Epochs of ``images`` images each that a training is likely to take."""
        raise NotImplementedError


class UntilPlateau(Budget):
    name = "epochs"
    meaning = "until validation accuracy stops rising, at most `max_epochs`: more steps for larger sets (the paper's)"
    unit = "epoch"
    schedules = ("plateau", "cosine")
    account = "at equal epochs, a method that adds images takes more steps than the target data alone."

    def check(self, settings):
        super().check(settings)
        if settings.steps is not None:
            raise ValueError("steps are counted with `budget: steps` alone: write it, or leave out `steps`")

    def rounds(self, settings):
        return settings.max_epochs

    def end(self, number, steps_per_epoch, settings):
        return number * steps_per_epoch

    def progress(self, number, end):
        return number

    def expected_epochs(self, images, settings):
        return min(settings.max_epochs, USUAL_EPOCHS)


class FixedSteps(Budget):
    """The same optimiser steps on whole batches for every method, however many images it has; no early stopping."""

    name = "steps"
    meaning = (
        f"`steps` optimiser steps for every method, {VALIDATIONS} "
        "validations at equal distances; max_epochs, patience and stop_after are not used"
    )
    unit = "step"
    has_whole_batches = True
    schedules = ("cosine",)
    account = (
        "every method is trained for the same number of steps, without early stopping: the fewer images it has, the "
        "more epochs."
    )

    def check(self, settings):
        super().check(settings)
        if settings.steps is None:
            raise ValueError("budget: steps needs their number, e.g. `steps: 20000`")

    def rounds(self, settings):
        return min(VALIDATIONS, settings.steps)

    def end(self, number, steps_per_epoch, settings):
        return number * settings.steps // self.rounds(settings)

    def progress(self, number, end):
        return end

    def expected_epochs(self, images, settings):
        return settings.steps * settings.batch_size / max(settings.batch_size, images)


BUDGETS: dict[str, Budget] = {budget.name: budget for budget in (UntilPlateau(), FixedSteps())}
