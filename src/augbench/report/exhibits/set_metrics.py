"""Metrics of each method's images, and how they go with the accuracy that these gain."""

from collections.abc import Mapping

import pandas as pd

from augbench.report import set_metrics
from augbench.report.drawing import Drawing, short
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.results import StudyResults, records

AXES = {
    "kid": "KID (lower: more alike)",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "vendi": "Vendi score",
}


def metrics(results: StudyResults) -> dict:
    """Rows of the table of metrics by family, with the accuracy that each method gains over the target data alone
    (percentage points), or its accuracy (percent) in a study without them."""
    known = {row["method"]: row for row in records(results.set_metrics)}
    without = results.summary[results.plan.without]["accuracy_mean"] if results.plan.without else 0.0
    rows = [
        known[key] | results.plan.named(key) | {"gained": results.summary[key]["accuracy_mean"] - without}
        for key in results.plan.adding
    ]
    return {"rows": rows, "gains": results.plan.without is not None}


def metrics_figure(data: Mapping) -> Drawing:
    """Accuracy over each metric in a panel of its own, a point per method in the colour of its family."""
    rows = [row for row in data["rows"] if row["kid"] is not None]
    label = "accuracy gained (points)" if data["gains"] else "accuracy (%)"
    marks = "osD^vPX*<>hd"

    def draw(figure, ink):
        for k, (axes, name) in enumerate(zip(figure.subplots(2, 3, sharey=True).ravel(), AXES, strict=True)):
            for number, row in enumerate(rows):
                style = {"color": row["colour"], "marker": marks[number % len(marks)], "linestyle": "none"}
                axes.plot(row[name], row["gained"], markersize=5, label=short(row["title"], 24), **style)
            if data["gains"]:
                axes.axhline(0, color=ink, linewidth=0.6, linestyle="dashed")
            axes.grid()
            axes.set_axisbelow(True)
            axes.set_xlabel(AXES[name], fontsize=8)
            axes.locator_params(axis="x", nbins=4)
            if k % 3 == 0:
                axes.set_ylabel(label, fontsize=8)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=8)

    return Drawing(draw, (6.6, 4.2 + 0.17 * -(-len(rows) // 3)))


def metrics_table(data: Mapping) -> pd.DataFrame:
    return pd.DataFrame(data["rows"])[["method", "title", "family", "gained", *set_metrics.COLUMNS[1:]]]


def _caption(data: Mapping) -> str:
    over = "gained over the target data alone" if data["gains"] else "reached"
    row = data["rows"][0]
    return (
        f"Accuracy {over} against metrics of what each method adds in its first run: {row['images']} of these images "
        f"and as many test images, drawn at random; features of the encoder {row['encoder']}, "
        f"{row['neighbours']} nearest neighbours."
    )


EXHIBITS = [
    Exhibit(
        name="set_metrics",
        section="gap",
        applies=lambda plan: bool(plan.adding),
        data=metrics,
        draw=metrics_figure,
        table=metrics_table,
        caption=_caption,
        description="Accuracy over each metric of image sets; the numbers are in the table below",
        template="report/set_metrics.html.j2",
    )
]
