"""Names of columns, as people spell them."""

import itertools
import re
from collections.abc import Mapping, Sequence


def plain(name: str) -> str:
    """A column's name without case, spaces, ``_`` and ``-``."""
    return re.sub(r"[\s_\-]", "", name).casefold()


def first_match(names: Sequence[str], columns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Name -> the first of its spellings that a file has; spelt exactly so, else whatever the case."""
    chosen = {}
    for name, spellings in columns.items():
        exact = (spelt for spelt in spellings if spelt in names)
        alike = (spelt for known in spellings for spelt in names if plain(spelt) == plain(known))
        if spelt := next(itertools.chain(exact, alike), None):
            chosen[name] = spelt
    return chosen
