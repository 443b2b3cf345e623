"""Differences between methods, question by question."""

from collections.abc import Mapping, Sequence

import pandas as pd

from augbench.report import comparison
from augbench.report.drawing import Drawing, label_rows, short
from augbench.report.exhibits.exhibit import Exhibit, counted
from augbench.report.results import StudyResults


def differences(results: StudyResults) -> list[dict]:
    """The differences that each of the study's questions asks for; questions without any are left out."""
    plan, parts = results.plan, []
    for question, pairs in comparison.questions(results.summaries).items():
        if not pairs:
            continue
        helps = question == comparison.HELPS
        # Each is named after the method that changes from row to row.
        changing = "method" if helps else "other"
        rows = [
            row
            | {key: plan.named(row[changing])[key] for key in ("title", "family", "colour")}
            | {"counts": row["p_holm"] is not None and row["p_holm"] < comparison.LEVEL}
            for row in comparison.asked(results.differences, pairs)
        ]
        fixed = plan.methods[pairs[0][1] if helps else pairs[0][0]].title
        label = f"minus {fixed}" if helps else f"{fixed} minus each method"
        best = None if helps else {"title": fixed, "among": len(plan.retrieving)}
        parts.append({"question": question, "label": f"{label} (percentage points)", "rows": rows, "best": best})
    for part in parts:
        part["caption"] = _part_caption(part)
    return parts


def _part_caption(part: Mapping) -> str:
    if part["best"] is None:
        text = "Does it help? Each method minus the target data alone, in percentage points."
    else:
        text = f"Retrieve or generate? {part['best']['title']} minus each method that generates, in percentage points."
        if part["best"]["among"] > 1:
            text += f" Of {part['best']['among']} retrieval methods it has the highest validation accuracy."
    return f"{text} Corrected for {counted(len(part['rows']), 'test')}. All other pairs, uncorrected:"


def differences_figure(parts: Sequence[Mapping]) -> Drawing:
    """Differences with 95% intervals (percentage points), a panel per question.

    ``parts`` have a label and ``rows`` with title, family, difference, low and high (None without an interval) and
    ``counts``, whether the difference counts, which a full point says.
    """

    def draw(figure, ink):
        panels = figure.subplots(
            len(parts), 1, squeeze=False, height_ratios=[1.6 + len(part["rows"]) for part in parts]
        )
        for axes, part in zip(panels[:, 0], parts, strict=True):
            rows = part["rows"]
            axes.axvline(0, color=ink, linewidth=0.8)
            for y, row in enumerate(rows):
                colour = row["colour"]
                if row["low"] is not None:
                    axes.hlines(y, row["low"], row["high"], color=colour, linewidth=2.2)
                fill = colour if row["counts"] else "none"
                axes.plot(row["difference"], y, "o", color=colour, markerfacecolor=fill, markersize=5)
            label_rows(axes, [short(row["title"]) for row in rows])
            axes.set_xlabel(part["label"], fontsize=8)

    return Drawing(draw, (4.6, sum(0.6 + 0.27 * len(part["rows"]) for part in parts)))


def differences_table(parts: Sequence[Mapping]) -> pd.DataFrame:
    return pd.DataFrame([row for part in parts for row in part["rows"]])[comparison.DIFFERENCES]


EXHIBITS = [
    Exhibit(
        name="differences",
        section="differences",
        applies=lambda plan: plan.compared,
        data=differences,
        draw=differences_figure,
        table=differences_table,
        caption="Differences of accuracy and their 95% intervals. Full points: the difference counts.",
        description="Differences with intervals; their numbers are in the tables below",
        template="report/differences.html.j2",
    )
]
