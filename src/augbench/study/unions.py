"""Unions of methods: whose images they take, and which share of each."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from augbench.study.sections.base import did_you_mean

Rows = Mapping[str, Any]  # of the method table, each a :class:`augbench.study.methods.Method`


def shares_of(method: str, rows: Rows) -> dict[str, Fraction]:
    """Method -> its share of the images of a union, in the order of the row; none for a method that is no union.

    Of a union in a union stand the methods whose images it takes: an image is never drawn twice.
    """
    shares: dict[str, Fraction] = {}
    for name, share in rows[method].shares.items():
        for part, inner in (shares_of(name, rows) or {name: Fraction(1)}).items():
            shares[part] = shares.get(part, Fraction(0)) + share * inner
    return shares


def with_parts(methods: Sequence[str], rows: Rows) -> list[str]:
    """These methods, and those whose images their unions take."""
    parts = [part for method in methods for part in shares_of(method, rows)]
    return list(dict.fromkeys([*methods, *parts]))


def check(rows: Rows) -> None:
    """Raise ValueError with one sentence when a union cannot be made of the methods that its row names."""
    for method in rows:
        for part in rows[method].shares:
            if part not in rows:
                known = ", ".join(name for name, row in rows.items() if row.start.has_shares)
                raise ValueError(
                    f"methods.{method}.of: there is no method {part!r}{did_you_mean(part, rows)} (known: {known})"
                )
            if not rows[part].start.has_shares:
                why = "adds all further real images" if rows[part].start.adds_images else "adds no images"
                raise ValueError(f"methods.{method}.of: {part} {why}, of which there are no shares; leave it out")
        _check_cycles(method, rows)


def _check_cycles(method: str, rows: Rows, above: tuple[str, ...] = ()) -> None:
    if method in above:
        first = above[above.index(method) :]
        through = f", by way of {', '.join(first[1:])}" if len(first) > 1 else ""
        raise ValueError(f"methods.{method}.of: {method} is a union of itself{through}; name other methods")
    for part in rows[method].shares:
        if part in rows:
            _check_cycles(part, rows, (*above, method))
