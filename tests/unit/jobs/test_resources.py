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


def test_time_and_memory_grow_with_the_attempt_up_to_what_a_cluster_grants():
    assert resources.minutes(3600) == 30 + 120
    assert resources.minutes(3600, 3) == 3 * resources.minutes(3600)
    assert resources.megabytes(1499.2, 2) == 2 * 1500
    assert resources.minutes(3600 * 40) == resources.minutes(3600, 40) == 72 * 60
    assert resources.megabytes(50_000, 3) == resources.megabytes(1e9) == 128_000


def test_pictures_are_as_large_as_their_format_and_quality_say():
    head = 2048  # of a tar's members, and two texts
    assert resources.pictures(2, 512, "png", 95) == 2 * (1.5 * 512**2 + head)
    sizes = [resources.pictures(1, 512, "jpeg", quality) for quality in (1, 50, 70, 75, 90, 95, 100)]
    assert sizes == sorted(sizes) and sizes[0] == sizes[1] == 0.10 * 512**2 + head
    between = (resources.pictures(1, 512, "webp", 75) + resources.pictures(1, 512, "webp", 85)) / 2
    assert resources.pictures(1, 512, "webp", 80) == pytest.approx(between)


def test_judging_shares_its_threads_and_is_faster_on_a_gpu():
    assert resources.judging(100, 2, 4, gpu=False) == pytest.approx(100 * 2 * 2.0 / 4)
    assert resources.judging(100, 1, 1, gpu=True) < resources.judging(100, 1, 16, gpu=False)
