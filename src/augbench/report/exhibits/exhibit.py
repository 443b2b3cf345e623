"""An exhibit: one figure or table of the report, as its entry in the catalogue describes it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from augbench.report.drawing import Drawing
from augbench.report.plan import Plan
from augbench.report.results import StudyResults


def always(plan: Plan) -> bool:
    return True


@dataclass(frozen=True)
class Exhibit:
    """A figure or table.

    With ``draw`` it is a figure: drawn into the study's folder of figures, with its data as ``table`` gives them beside
    it, and on the page. ``inline`` draws what the page shows instead, by names of its own; an empty mapping where the
    template shows pictures. ``for_each`` names the methods that have an exhibit of their own, NAME-METHOD; ``data``
    then takes the method too. A caption is plain text, or made from the data; so is the description, for readers who
    cannot see the exhibit.
    """

    name: str
    section: str  # of the page, see catalogue.SECTIONS
    data: Callable[..., Any]  # from StudyResults
    caption: str | Callable[[Any], str] = ""
    applies: Callable[[Plan], bool] = always
    draw: Callable[[Any], Drawing] | None = None
    table: Callable[[Any], pd.DataFrame] | None = None
    inline: Callable[[Any], dict[str, Drawing]] | None = None
    template: str = "report/figure.html.j2"
    title: str = ""  # a heading, where a section has several exhibits
    description: str | Callable[[Any], str] = ""
    for_each: Callable[[Plan], Sequence[str]] | None = None

    def names(self, plan: Plan) -> list[str]:
        """The exhibits of this entry that a study has."""
        return list(self._methods(plan))

    def gather(self, results: StudyResults) -> Iterator[tuple[str, Any]]:
        """The name and the data of each of :meth:`names`."""
        for name, method in self._methods(results.plan).items():
            yield name, self.data(results) if method is None else self.data(results, method)

    def _methods(self, plan: Plan) -> dict[str, str | None]:
        if not self.applies(plan):
            return {}
        if self.for_each is None:
            return {self.name: None}
        return {f"{self.name}-{method}": method for method in self.for_each(plan)}


def text_for(text: str | Callable[[Any], str], data: Any) -> str:
    """A caption or a description for these data."""
    return text if isinstance(text, str) else text(data)


def counted(count: int, word: str) -> str:
    """``1 test`` or ``3 tests``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
