"""What methods do to each class: Figure 5A, and each class with its accuracies, confusions and pictures."""

from collections.abc import Mapping, Sequence

import pandas as pd

from augbench.report import per_class
from augbench.report.drawing import Drawing, mosaic, short
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.pictures import TRAINING, pictures
from augbench.report.results import PER_CLASS, StudyResults, records

EXTREMES = 5  # worst and best classes of Figure 5A
PICTURES = 8000  # in the rows of all classes together; it bounds the size of the page
SIDE, BYTES = 64, 2000  # pixels and bytes of each of them
SMALL_STUDY = 50  # classes up to which their pictures have the usual size


def compared(results: StudyResults) -> list[str]:
    """The methods of Figure 5A: of each kind (:attr:`augbench.report.plan.Plan.kinds`) the best."""
    best = [results.best(methods) for methods in results.plan.kinds]
    return [method for method in best if method]


def improvements(results: StudyResults) -> list[dict]:
    """Figure 5A: per compared method its classes by improvement, and the worst and best of them with pictures."""
    methods = compared(results)
    table = per_class.improvements(results.per_class, methods, results.plan.without)
    lines = []
    for method in methods:
        rows = table[table["method"] == method].to_dict("records")
        rows = [{**row, "name": results.names.get(row["class"], row["class"])} for row in rows]
        count = min(EXTREMES, len(rows) // 2)
        lines.append(
            results.plan.named(method)
            | {
                "rows": rows,
                "worst": [_with_pictures(results, row, method) for row in rows[:count]],
                "best": [_with_pictures(results, row, method) for row in rows[::-1][:count]],
                "worse": sum(row["improvement"] < 0 for row in rows),
            }
        )
    return lines


def _with_pictures(results: StudyResults, row: Mapping, method: str) -> dict:
    """A class with one of its training images and one that the method adds."""
    both = pictures(results, TRAINING, row, 1) + pictures(results, method, row, 1)
    return dict(row) | {"pictures": both}


def improvement_axes(axes, lines: Sequence[Mapping], ink: str) -> None:
    """Sorted improvements per class (percentage points), a line per method; see :func:`improvement_figure`."""
    axes.axhline(0, color=ink, linewidth=0.8)
    for line in lines:
        colour = line["colour"]
        values = [row["improvement"] for row in line["rows"]]
        share = [100 * (rank + 0.5) / len(values) for rank in range(len(values))]
        with_points = len(values) <= 50
        style = "o-" if with_points else "-"
        axes.plot(share, values, style, color=colour, markersize=3, linewidth=1.3, label=line["title"])
    axes.grid(axis="y")
    axes.set_xlim(0, 100)
    axes.set_xlabel("classes, from the worst to the best (%)")
    axes.set_ylabel("improvement (percentage points)", fontsize=8)


def improvement_figure(lines: Sequence[Mapping]) -> Drawing:
    """Figure 5A, its middle: the distribution over classes of what each method of ``lines`` improves."""

    def draw(figure, ink):
        improvement_axes(figure.subplots(), lines, ink)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)

    return Drawing(draw, (4.6, 2.9))


def extremes_figure(lines: Sequence[Mapping]) -> Drawing:
    """Figure 5A as a whole: the distribution, below it pictures of each method's worst and best classes.

    ``lines`` also have ``worst`` and ``best``: classes with name, improvement and pictures.
    """
    below = [line["worst"] + line["best"] for line in lines]
    across = max(map(len, below), default=1) or 1

    def draw(figure, ink):
        axes = figure.subplots(1 + len(lines), 1, height_ratios=[2.6] + [1.6] * len(lines))
        improvement_axes(axes[0], lines, ink)
        axes[0].legend(loc="upper left", frameon=False, fontsize=8)
        for line, shown, part in zip(lines, below, axes[1:], strict=True):
            columns = [{"name": f"{short(each['name'], 11)}\n{each['improvement']:+.1f}"} for each in shown]
            rows = [
                {"title": title, "cells": [each["pictures"][place : place + 1] for each in shown]}
                for place, title in enumerate(("training image", "added image"))
            ]
            mosaic(part, columns, rows, 1)
            part.set_xlabel(f"{line['title']}: its worst classes, then its best", fontsize=8)

    return Drawing(draw, (1.4 + 0.65 * max(across, 6), 2.8 + 1.9 * len(lines)))


def improvements_table(lines: Sequence[Mapping]) -> pd.DataFrame:
    return pd.DataFrame([row | {"method": line["method"]} for line in lines for row in line["rows"]])


def _improvements_caption(lines: Sequence[Mapping]) -> str:
    worse = "; ".join(f"{line['title']} makes {line['worse']} of {len(line['rows'])} classes worse" for line in lines)
    return (
        "Figure 5A: accuracy of each class minus that of the target data alone, the classes of each method sorted. "
        f"{worse}."
    )


def every_class(results: StudyResults) -> list[dict]:
    """Each class that takes part, with what each method does to it.

    A class has class, name, tested (images), training (pictures) and ``rows``, one per method: title, accuracy_mean and
    accuracy_se (percent), gain over the target data alone (percentage points; None without it), confusions (name and
    share in percent) and pictures of added images. Large studies have smaller and fewer pictures.
    """
    accuracies = {(row["method"], row["class"]): row for row in records(results.per_class)}
    confusions: dict = {}
    for row in records(results.confusions):
        wrong = {"name": results.names.get(row["predicted"], row["predicted"]), "share": row["share"]}
        confusions.setdefault((row["method"], row["class"]), []).append(wrong)
    counts = _pictures_of_a_class(len(results.kept), [TRAINING, *compared(results), *results.plan.adding])
    limits = {} if len(results.kept) <= SMALL_STUDY else {"side": SIDE, "limit": BYTES}
    classes = []
    for shown in results.kept:
        rows = []
        for method in results.plan.methods:
            numbers = accuracies.get((method, shown["class"]))
            if numbers is None:  # a class without test images
                continue
            count = counts.get(method, 0)
            rows.append(
                results.plan.named(method)
                | {key: numbers[key] for key in ("accuracy_mean", "accuracy_se", "tested")}
                | {"gain": _gain(accuracies, method, results.plan.without, shown["class"])}
                | {"confusions": confusions.get((method, shown["class"]), [])}
                | {"pictures": pictures(results, method, shown, count, **limits) if count else []}
            )
        tested = rows[0]["tested"] if rows else 0
        training = pictures(results, TRAINING, shown, counts.get(TRAINING, 0), **limits)
        classes.append(shown | {"rows": rows, "tested": tested, "training": training})
    return classes


def _gain(accuracies: Mapping, method: str, without: str | None, key: str) -> float | None:
    if without is None or method == without:
        return None
    return accuracies[method, key]["accuracy_mean"] - accuracies[without, key]["accuracy_mean"]


def _pictures_of_a_class(classes: int, sets: Sequence[str]) -> dict[str, int]:
    """How many pictures of a class each set may show, the first sets first, so that all classes keep to PICTURES."""
    sets = list(dict.fromkeys(sets))
    room = PICTURES // max(1, classes)
    each = min(PER_CLASS, max(1, room // len(sets)))
    return {key: each for key in sets[: room // each]}


EXHIBITS = [
    Exhibit(
        name="figure5a",
        section="classes",
        applies=lambda plan: bool(plan.without and plan.augmenting),
        data=improvements,
        draw=extremes_figure,
        table=improvements_table,
        inline=lambda lines: {"distribution": improvement_figure(lines)},
        caption=_improvements_caption,
        description="Improvement per class, sorted; its numbers are in the file that the caption names",
        template="report/improvements.html.j2",
    ),
    Exhibit(
        name="per_class",
        section="classes",
        data=every_class,
        title="Every class",
        caption=(
            "Accuracy is the mean over the runs, gain its difference from the target data alone in percentage points, "
            "and a confusion the share of the class’s test images that were taken for another class."
        ),
        template="report/every_class.html.j2",
    ),
]
