"""Budgets and rounds worked by hand: how many steps a training takes, of which images, at which rates."""

import math

import numpy as np
import pandas as pd
import pytest
from tinted import CLASSES, SEED, tinted, with_settings

from augbench.classifier import training
from augbench.classifier.schedule import Epochs, epoch_order
from augbench.core.files import read_json
from augbench.study.budgets import BUDGETS, VALIDATIONS
from augbench.study.sections.classifier import Classifier

STEPS = BUDGETS["steps"]


def test_steps_and_images_are_those_of_the_batches_that_are_cut():
    for images in (2, 31, 32, 33, 34, 64, 65, 66, 67, 68, 200):
        for least, whole in ((2, False), (4, False), (2, True)):
            order = epoch_order(images, 32, 0, 1, least, whole)
            epochs = Epochs(images, 32, 0, least, whole)
            assert (epochs.steps, epochs.images) == (len(order), sum(map(len, order)))
            seen = np.cumsum([0, *map(len, order), *map(len, order)])
            assert [epochs.images_until(step) for step in range(2 * len(order) + 1)] == list(seen)


def test_whole_batches_leave_out_what_is_left_and_another_rest_in_each_epoch():
    epochs = [epoch_order(21, 8, seed=1, epoch=epoch, whole=True) for epoch in (1, 2)]
    assert [[len(batch) for batch in order] for order in epochs] == [[8, 8], [8, 8]]
    assert set(np.concatenate(epochs[0])) != set(np.concatenate(epochs[1]))
    assert [len(batch) for batch in epoch_order(5, 8, 1, 1, whole=True)] == [5]


def test_batches_of_any_stretch_are_those_of_the_epochs():
    epochs = Epochs(25, 8, seed=1)  # three batches an epoch
    expected = [
        (epoch, place, list(batch))
        for epoch in (1, 2, 3)
        for place, batch in enumerate(epoch_order(25, 8, seed=1, epoch=epoch))
    ]
    for begin, end in ((0, 9), (0, 3), (2, 4), (1, 8), (3, 3)):
        stretch = [(epoch, place, list(batch)) for epoch, place, batch in epochs.batches(begin, end)]
        assert stretch == expected[begin:end]


@pytest.mark.parametrize(("steps", "rounds"), [(7, 7), (50, 50), (120, 50), (20000, 50)])
def test_steps_are_cut_into_rounds_of_equal_length(steps, rounds):
    settings = Classifier(budget="steps", steps=steps)
    ends = [STEPS.end(number, 10**6, settings) for number in range(rounds + 1)]
    assert STEPS.rounds(settings) == rounds == min(VALIDATIONS, steps)
    assert (ends[0], ends[-1]) == (0, steps)
    lengths = set(np.diff(ends))
    assert max(lengths) - min(lengths) <= 1 and min(lengths) >= 1
    is_over = settings.rate_schedule.is_over
    assert [is_over([1.0] * done, rounds, settings) for done in (0, rounds - 1, rounds)] == [False, False, True]


def test_the_rate_falls_along_a_cosine_whatever_the_accuracies():
    settings = Classifier(budget="steps", steps=12, learning_rate=0.8)
    for accuracies in ([], [5.0, 4.0, 3.0]):
        steps = STEPS.most_steps(5, settings)
        rates = [settings.rate_schedule.rate(accuracies, step, steps, settings) for step in (0, 3, 4, 6, 8, 12)]
        assert rates == pytest.approx([0.8, 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.4, 0.2, 0.0])


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"budget": "steps"}, "budget: steps needs their number, e.g. `steps: 20000`"),
        ({"steps": 9}, "steps are counted with `budget: steps` alone: write it, or leave out `steps`"),
        ({"budget": "step", "steps": 9}, "there is no budget 'step', did you mean 'steps'? (known: epochs, steps)"),
        ({"budget": "steps", "steps": 0}, "greater than or equal to 1"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(section, sentence):
    with pytest.raises(ValueError, match="(?s)steps") as error:
        Classifier(**section)
    assert sentence in str(error.value)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tinted")
    few, many = tinted(folder, "few", 20), tinted(folder, "many", 50)
    return few, many, tinted(folder, "validation", 15), tinted(folder, "test", 30)


def test_sets_of_different_sizes_see_the_same_steps_and_images(sets, tmp_path, monkeypatch):
    settings = with_settings(budget=STEPS, steps=23)
    done = {}
    for name, table in (("few", sets[0]), ("many", sets[1])):
        sizes, original = [], training._Training._step

        def counted(self, step, place, size, *rest, sizes=sizes, original=original):
            sizes.append(size)
            original(self, step, place, size, *rest)

        monkeypatch.setattr(training._Training, "_step", counted)
        training.train(table, *sets[2:], CLASSES, tmp_path / name, settings, seed=SEED)
        monkeypatch.undo()
        done[name] = read_json(tmp_path / name / "metrics.json")
        assert sizes == [8] * 23
        assert (done[name]["steps"], done[name]["images_seen"], done[name]["at_cap"]) == (23, 184, False)
        history = pd.read_csv(tmp_path / name / "history.csv")
        assert list(history["step"]) == list(range(1, 24))
        assert done[name]["best_step"] == history["step"][history["validation_accuracy"].idxmax()]
    assert done["few"]["epochs"] == 11.5  # of two batches
    assert done["many"]["epochs"] == pytest.approx(23 / 6)


def test_metrics_of_epochs_count_steps_and_images(sets, tmp_path):
    metrics = training.train(sets[1], *sets[2:], CLASSES, tmp_path, with_settings(max_epochs=2), seed=SEED)
    assert (metrics["epochs"], metrics["steps"], metrics["images_seen"]) == (2, 14, 100)
