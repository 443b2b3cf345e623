"""Accuracy and calibration on further test sets."""

from collections.abc import Mapping, Sequence

from augbench.report.evaluation import BINS, OWN
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.results import StudyResults, records


def by_set(results: StudyResults) -> list[dict]:
    """Each test set, the study's own first: name, images, classes, and ``rows`` by family, one per method.

    ``resembling`` of a row is the percentage of the set's images that may be among those that the method adds; None
    where it adds none, or where the set is empty.
    """
    known = {(row["set"], row["method"]): row for row in records(results.evaluation)}
    sets = []
    for name in (OWN, *results.plan.settings.evaluate):
        rows = [
            known[name, key] | results.plan.named(key) | {"resembling": _resembling(results, key, name)}
            for key in results.plan.methods
        ]
        best = max(row["accuracy_mean"] for row in rows)
        title = "own test split" if name == OWN else name
        about = {"name": title, "images": rows[0]["images"], "classes": rows[0]["classes"]}
        sets.append(about | {"rows": [row | {"best": row["accuracy_mean"] == best} for row in rows]})
    return sets


def _resembling(results: StudyResults, method: str, name: str) -> float | None:
    audited = results.audit(method)["references"] if method in results.plan.adding else {}
    return 100 * audited[name]["share"] if name in audited else None


def _caption(sets: Sequence[Mapping]) -> str:
    return (
        "The classifiers of Table 1 on further test sets, in percent: accuracy; macro accuracy, the mean over classes; "
        f"and expected calibration error, in {BINS} bins of equal width by confidence (0: probabilities are right). "
        "Each is the mean over the runs ± its standard error. Classes that a set lacks are no answers. Resembling: "
        "images of the set that may be among those that the method adds, as the audit says; labels of these may be "
        "right for that reason alone."
    )


EXHIBITS = [
    Exhibit(
        name="evaluation",
        section="evaluation",
        applies=lambda plan: bool(plan.settings.evaluate),
        data=by_set,
        caption=_caption,
        template="report/evaluation.html.j2",
    )
]
