"""What jobs cost, against the paper's own GPU-hours (section 3.1)."""

import pytest

from augbench.jobs import resources
from augbench.study.parts import PARTS


def test_the_papers_study_costs_the_papers_hours():
    assert resources.sampling(390 * 1000, 50, 512) / 3600 == pytest.approx(867)
    hours = {("conditioning",): 380, ("pseudo_word",): 368, ("unet", "conditioning"): 552, ("pseudo_word", "unet"): 720}
    for names, expected in hours.items():
        trained = [PARTS[name] for name in names]
        assert resources.finetuning(126_861, 40, 512, trained) / 3600 == pytest.approx(expected)
    assert 5 * resources.classifier(2 * 126_861, 100, 224) / 3600 == pytest.approx(160)
    assert resources.retrieval(130_000) / 3600 == pytest.approx(28.5)


def test_parts_that_the_paper_does_not_train_together_cost_what_the_longest_of_them_does():
    class New:
        name, gpu_hours = "new", 400

    for trained, expected in (([PARTS["unet"], New], 720), ([New, PARTS["pseudo_word"]], 400), ([New], 400)):
        assert resources.finetuning(126_861, 40, 512, trained) / 3600 == pytest.approx(expected)


def test_a_quarter_of_the_pixels_costs_a_quarter():
    assert resources.sampling(10, 50, 256) == pytest.approx(resources.sampling(10, 50, 512) / 4)
    assert resources.latents(10, 256) == pytest.approx(resources.latents(10, 512) / 4)


def test_latents_are_as_large_as_they_are_stored():
    assert resources.latents(3, 512) == 3 * (2 * 4 * 64 * 64) * 4  # mean and variance, 4 channels, an eighth a side


def test_time_and_memory_grow_with_the_attempt():
    assert resources.minutes(3600) == 30 + 120
    assert resources.minutes(3600, 3) == 3 * resources.minutes(3600)
    assert resources.megabytes(1000, 2, bytes=5e8) == 2 * 1500
