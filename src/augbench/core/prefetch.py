"""Work that threads do ahead of whoever needs its results."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor


def ahead(function: Callable, items: Iterable, threads: int = 1) -> Iterator:
    """``function(item)`` of each item, in their order, while threads compute those of the next items.

    An error is raised in its item's place. Without threads each result is computed when it is asked for.
    """
    if not threads:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:  # one more than is consumed: no thread is idle, and memory stays bounded
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also when nobody wants the rest
            for future in waiting:
                future.cancel()
