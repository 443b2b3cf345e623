"""Training curves of the classifiers."""

from collections.abc import Mapping, Sequence

import pandas as pd

from augbench.report.drawing import Drawing, panels_figure
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.results import StudyResults
from augbench.study.adaptations import PROBE_UNIT

OVER = {"epoch": "the epochs", "step": "the steps", PROBE_UNIT: "the inverse strength of regularisation, log10(C)"}


def curves(results: StudyResults) -> list[dict]:
    """Validation accuracies (percent) of all runs of each method, at the main ratio, by the ``unit`` in which
    their histories count: epoch, step, or the strength of a probe."""
    rows, unit = [], results.plan.settings.classifier.unit
    for key in results.plan.methods:
        runs = [{unit: list(run[unit]), "accuracy": list(run["validation_accuracy"])} for run in results.histories(key)]
        rows.append(results.plan.named(key) | {"unit": unit, "runs": runs})
    return rows


def curve_figure(curves: Mapping, limits: tuple[float, float]) -> Drawing:
    """Validation accuracy (percent) over the epochs or steps, a line per run."""

    def draw(figure, ink):
        axes = figure.subplots()
        colour = curves["colour"]
        for run in curves["runs"]:
            axes.plot(run[curves["unit"]], run["accuracy"], color=colour, linewidth=0.9, alpha=0.8)
        axes.set_ylim(*limits)
        axes.grid(axis="y")
        axes.set_xlabel(curves["unit"])
        axes.set_ylabel("validation accuracy (%)", fontsize=8)

    return Drawing(draw, (2.9, 1.9))


def limits(rows: Sequence[Mapping]) -> tuple[float, float]:
    """The range of accuracies (percent) that all training curves share."""
    values = [value for row in rows for run in row["runs"] for value in run["accuracy"]]
    return max(0.0, min(values) - 3), min(100.0, max(values)) + 3


def all_curves_figure(rows: Sequence[Mapping]) -> Drawing:
    return panels_figure([(row["title"], curve_figure(row, limits(rows))) for row in rows])


def curves_table(rows: Sequence[Mapping]) -> pd.DataFrame:
    tables = [
        pd.DataFrame(run).assign(method=row["method"], run=k) for row in rows for k, run in enumerate(row["runs"], 1)
    ]
    return pd.concat(tables, ignore_index=True)


EXHIBITS = [
    Exhibit(
        name="training",
        section="curves",
        data=curves,
        draw=all_curves_figure,
        table=curves_table,
        inline=lambda rows: {row["method"]: curve_figure(row, limits(rows)) for row in rows},
        caption=lambda rows: f"Validation accuracy over {OVER[rows[0]['unit']]}, one line per run.",
        template="report/training.html.j2",
    )
]
