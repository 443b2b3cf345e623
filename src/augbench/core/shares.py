"""Deals out the files of a rule's input, which come as one list, among methods or ratios."""

from collections.abc import Sequence
from typing import TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")


def shares(keys: Sequence[Key], items: Sequence[Item]) -> dict[Key, list[Item]]:
    """Key -> its share of the items, which come in equal shares in the order of the keys: of runs by method, say.

    Raises ValueError when the shares are not equal.
    """
    size, rest = divmod(len(items), len(keys))
    if rest:
        raise ValueError(f"{len(items)} files cannot be shared equally among {', '.join(map(str, keys))}")
    return {key: list(items[place * size : (place + 1) * size]) for place, key in enumerate(keys)}
