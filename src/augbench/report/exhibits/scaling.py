"""Accuracy over the number of added images: Figure 5B."""

import math
from collections.abc import Mapping

import pandas as pd

from augbench.report.drawing import Drawing, short
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.results import StudyResults, records


def scaling(results: StudyResults) -> dict:
    """The methods with more than one ratio, each with its rows by ratio, and the accuracy of the target data alone."""
    plan, rows = results.plan, records(results.scaling.sort_values("ratio"))
    lines = [plan.named(key) | {"rows": [row for row in rows if row["method"] == key]} for key in plan.scaled]
    return {"lines": lines, "without": results.summary[plan.without]["accuracy_mean"] if plan.without else None}


def scaling_figure(data: Mapping) -> Drawing:
    """Figure 5B: accuracy over the augmentation ratio, a line per method, the baseline at ratio 0.

    ``lines`` have title, colour and ``rows`` of the scaling table by ratio. Triangles mark the worst and the best
    case where classes had to be left out, hollow points ratios at which all runs added the same images.
    """
    lines, without, marks = data["lines"], data["without"], "osD^vPX*<>hd"

    def draw(figure, ink):
        axes = figure.subplots()
        for k, line in enumerate(lines):
            colour = line["colour"]
            x = [100 * row["ratio"] for row in line["rows"]]
            y = [row["accuracy_mean"] for row in line["rows"]]
            error = [row["accuracy_se"] or 0 for row in line["rows"]]
            mark = marks[k % len(marks)]
            begin = ([0, x[0]], [without, y[0]]) if without is not None else ([], [])
            axes.plot(*begin, color=colour, linewidth=1, alpha=0.6)
            label = short(line["title"], 24)
            axes.errorbar(x, y, yerr=error, color=colour, linewidth=1.2)
            fill = "none" if all(row["sets"] == 1 for row in line["rows"]) else colour
            axes.plot([], [], color=colour, marker=mark, markerfacecolor=fill, markersize=4, linewidth=1.2, label=label)
            for row in line["rows"]:
                fill = "none" if row["sets"] == 1 else colour
                place = 100 * row["ratio"], row["accuracy_mean"]
                axes.plot(*place, marker=mark, color=colour, markerfacecolor=fill, markersize=4)
                if row["accuracy_worst"] != row["accuracy_best"]:
                    for key, shape in (("accuracy_worst", "^"), ("accuracy_best", "v")):
                        axes.plot(100 * row["ratio"], row[key], shape, color=colour, mfc="none", markersize=6)
        if without is not None:
            axes.plot(0, without, "o", color=ink, markersize=4)
        axes.grid(axis="y")
        axes.set_xlabel("added images (% of the training images)")
        axes.set_ylabel("top-1 accuracy (%)", fontsize=8)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)

    return Drawing(draw, (4.6, 3.2 + 0.17 * math.ceil(len(lines) / 2)))


def scaling_table(data: Mapping) -> pd.DataFrame:
    return pd.DataFrame([row for line in data["lines"] for row in line["rows"]])


EXHIBITS = [
    Exhibit(
        name="figure5b",
        section="scaling",
        applies=lambda plan: bool(plan.scaled),
        data=scaling,
        draw=scaling_figure,
        table=scaling_table,
        caption=(
            "Figure 5B: accuracy with standard error over the number of added images. Hollow points: all runs added "
            "the same images, so the whisker holds the spread of training but not that of another set of images. "
            "Where retrieval could not fill classes, triangles show the accuracy if every test image of those classes "
            "counted as wrong (worst case, pointing up) or as right (best case, pointing down)."
        ),
        description="Accuracy over the augmentation ratio; its numbers are in the table below",
        template="report/scaling.html.j2",
    )
]
