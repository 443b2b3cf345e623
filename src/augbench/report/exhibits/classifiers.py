"""Methods in the eyes of several classifiers, and whose weights these begin with."""

from collections.abc import Mapping

from augbench.report.comparison import LEVEL
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.plan import Plan
from augbench.report.results import StudyResults, records


def crossed(results: StudyResults) -> dict:
    """The ``classifiers`` with what is said of them, and ``rows``: a method with a ``cell`` for each classifier."""
    plan, table = results.plan, records(results.classifiers)
    cells = {(row["method"], row["classifier"]): row | {"helps": _helps(row)} for row in table}
    names = list(dict.fromkeys(row["classifier"] for row in table))
    rows = [plan.named(key) | {"cells": [cells[key, name] for name in names]} for key in plan.methods]
    return {"classifiers": [_described(plan, name, cells) for name in names], "rows": rows, "has_without": plan.without}


def _helps(row: Mapping) -> bool:
    return row["p_holm"] is not None and row["p_holm"] < LEVEL and row["difference"] > 0


def _described(plan: Plan, name: str, cells: Mapping) -> dict:
    section, facts = plan.settings.all_classifiers[name], cells[next(iter(plan.methods)), name]
    mine = [cells[key, name] for key in plan.augmenting]
    return {"name": name, "facts": facts, "train": section.train.name, "verdict": _verdict(plan, name, mine)}


def _verdict(plan: Plan, name: str, cells: list) -> str:
    """Whether what methods add helps a classifier, and retrieval in particular; empty without a comparison."""
    if plan.without is None or not cells:
        return ""
    words = f"{name}: {_counted(sum(row['helps'] for row in cells), len(cells))}"
    retrieved = [row for row in cells if row["method"] in plan.retrieving]
    if not retrieved:
        return f"{words}."
    best = max(retrieved, key=lambda row: row["difference"])
    title = plan.named(best["method"])["title"]
    if best["low"] is None:
        return f"{words}; {title} changes accuracy by {best['difference']:+.1f} points (a single run has no interval)."
    interval = f"{best['difference']:+.1f} points, 95% interval {best['low']:+.1f} to {best['high']:+.1f}"
    still = "helps" if best["helps"] else "is not seen to help"
    return f"{words}; retrieval {still} ({title}: {interval})."


def _counted(helping: int, all: int) -> str:
    if all == 1:
        return f"the one method that adds images {'helps' if helping else 'is not seen to help'}"
    return f"{helping or 'none'} of the {all} methods that add images {'help' if helping > 1 else 'helps'}"


def _caption(data: Mapping) -> str:
    points = (
        " Below it the difference to the same classifier on the target alone, in percentage points with its 95% "
        f"interval; bold where the method helps (p below {LEVEL}, corrected within the classifier)."
        if data["has_without"]
        else ""
    )
    return f"Accuracy in percent, with its standard error over the runs, of each method and classifier.{points}"


EXHIBITS = [
    Exhibit(
        name="classifiers",
        section="classifiers",
        applies=lambda plan: bool(plan.settings.classifiers) or plan.settings.classifier.is_pretrained,
        data=crossed,
        caption=_caption,
        template="report/classifiers.html.j2",
    )
]
