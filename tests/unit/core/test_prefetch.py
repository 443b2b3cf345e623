"""What is computed ahead comes in its order, its errors in their place, and no more of it than is looked at soon."""

import threading

import pytest

from augbench.core.prefetch import ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_order_and_an_error_in_its_place(threads):
    def inverse(item):
        return 1 / item

    assert list(ahead(inverse, [4, 2, 1], threads)) == [0.25, 0.5, 1]
    results = ahead(inverse, [4, 0, 1], threads)
    assert next(results) == 0.25
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_next_item_is_computed_while_one_is_used():
    second = threading.Event()

    def compute(item):
        if item == 1:
            second.set()
        return item

    results = ahead(compute, range(3))
    assert next(results) == 0
    assert second.wait(timeout=10)  # and nobody has asked for it
    assert list(results) == [1, 2]


def test_no_more_is_computed_than_is_used_soon():
    computed = []
    results = ahead(lambda item: computed.append(item) or item, range(100), threads=2)
    for _ in range(3):
        next(results)
    results.close()
    assert 3 <= len(computed) <= 3 + 3
