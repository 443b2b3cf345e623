"""Work that a GPU has no memory for goes on in halves; what is too much by itself is one sentence."""

import pytest
import torch

from augbench.core.gpu_memory import Portions


def holding(most: int, sizes: list):
    """Doubles what it is given, and has memory for so many items at a time."""

    def compute(portion):
        sizes.append(len(portion))
        if len(portion) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return [2 * item for item in portion]

    return compute


def test_portions_are_halved_until_they_fit_and_stay_so(capsys):
    portions, sizes = Portions(8, "images to denoise", "take another"), []
    assert portions(holding(3, sizes), list(range(10))) == [[0, 2], [4, 6], [8, 10], [12, 14], [16, 18]]
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    assert portions(holding(3, sizes), [1, 2, 3]) == [[2, 4], [6]]
    assert sizes[7:] == [2, 1]
    assert capsys.readouterr().out.splitlines() == [
        "the GPU's memory does not suffice for 8 images to denoise: going on with 4",
        "the GPU's memory does not suffice for 4 images to denoise: going on with 2",
    ]


def test_one_item_too_many_is_a_sentence():
    wanted = "^the GPU's memory does not suffice for one of the images to denoise; take another$"
    with pytest.raises(RuntimeError, match=wanted):
        Portions(4, "images to denoise", "take another")(holding(0, []), [1, 2, 3])


def test_other_errors_are_not_taken_for_a_want_of_memory():
    with pytest.raises(ZeroDivisionError):
        Portions(4, "images", "")(lambda portion: 1 / 0, [1, 2, 3])


def test_a_failed_attempt_keeps_no_memory():
    import weakref

    class Large:
        pass

    kept = []

    def compute(portion):
        large = Large()
        if len(portion) > 1:
            kept.append(weakref.ref(large))
            raise torch.OutOfMemoryError
        assert kept[0]() is None
        return 1

    assert Portions(2, "images", "")(compute, [1, 2]) == [1, 1]
