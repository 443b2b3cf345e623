"""Accuracy with all classes weighed alike; of a long-tailed target it stands in Table 1."""

from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.groups import GROUPS, is_long_tailed
from augbench.report.results import StudyResults, records


def by_method(results: StudyResults) -> dict:
    """Rows of the table of groups by family, with the name of the worst class; of a long-tailed target its ``groups``:
    name, number of classes and training images of each that has classes."""
    rows = {row["method"]: row for row in records(results.groups)}
    rows = {key: row | {"worst_name": results.names.get(row["worst_class"], "")} for key, row in rows.items()}
    first = next(iter(rows.values()))
    groups = [
        {"name": name, "classes": first[f"{name}_classes"], "images": _images(least, most)}
        for name, (least, most) in GROUPS.items()
        if first[f"{name}_classes"]
    ]
    return {
        "rows": [rows[key] | results.plan.named(key) for key in results.plan.methods],
        "groups": groups if is_long_tailed(row["train"] for row in results.kept) else [],
    }


def _images(least: int, most: int | None) -> str:
    if most is None:
        return f"more than {least - 1} training images"
    return f"fewer than {most + 1} training images" if least == 0 else f"{least} to {most} training images"


EXHIBITS = [
    Exhibit(
        name="groups",
        section="table1",
        data=by_method,
        caption=(
            "Accuracy in percent with all classes weighed alike, mean over the runs ± standard error: the mean over "
            "classes, and that of the class with the lowest."
        ),
        template="report/groups.html.j2",
    )
]
