"""What became of the neighbours that retrieval considered."""

from collections.abc import Mapping

import pandas as pd

from augbench.report import sentences
from augbench.report.drawing import Drawing, label_rows, short
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.families import NEUTRAL
from augbench.report.results import StudyResults, named_class

CLOSEST = 10  # classes that retrieval could fill only just, or not
FUNNEL_CLASSES = 30  # bars in the figure
FATES = {  # fate of a retrieved neighbour: its colour; fates that are not listed come last
    "used": "#2f9e62",
    "spare": "#9bd3ae",
    "unaesthetic": "#e6b450",
    "duplicate": "#7f9bd1",
    "other class": "#8fc4c9",
    "dead": "#8a8f98",
    "timeout": "#6d727a",
    "licence": "#3d5a80",
    "refused": "#54585f",
    "opted out": "#c4a24a",
    "too large": "#a58a6f",
    "too small": "#c7b299",
    "unreadable": "#b48ead",
    "unsafe": "#d4574e",
}


def funnel(results: StudyResults, method: str) -> dict:
    """How many neighbours of each class met which fate, and the classes that were nearly not, or not, filled."""
    table = results.funnel(method)
    known = list(table)[2:]  # after wanted and considered
    fates = [fate for fate in sorted(known, key=[*FATES, *known].index) if table[fate].any()]
    rows = []
    for row in results.class_info.to_dict("records"):
        counts = table.loc[row["class"]]
        rows.append(
            named_class(row)
            | {"counts": [int(counts[fate]) for fate in fates], "good": int(counts["used"] + counts["spare"])}
            | {name: int(counts[name]) for name in ("wanted", "considered", "used")}
        )
    links = results.links(method)
    asked = [row for row in rows if row["wanted"]]  # a class that is large enough wants none
    closest = sorted(asked, key=lambda row: (row["used"] / row["wanted"], row["good"] / max(1, row["considered"])))
    return results.plan.named(method) | {
        "fates": fates,
        "rows": rows,
        "closest": closest[:CLOSEST],
        "total": [int(table[fate].sum()) for fate in fates],
        "source": results.files.funnels[method],
        "links": links | {"size": sentences.size(links["bytes"]), "source": results.files.hosts[method]},
        "several": len(results.plan.retrieving) > 1,
        "first": method == results.plan.retrieving[0],
    }


def funnel_figure(funnel: Mapping) -> Drawing:
    """Fates of the neighbours of the first classes as stacked bars (number of neighbours)."""
    rows = funnel["rows"][:FUNNEL_CLASSES]

    def draw(figure, ink):
        axes = figure.subplots()
        left = [0] * len(rows)
        for k, fate in enumerate(funnel["fates"]):
            widths = [row["counts"][k] for row in rows]
            colour = FATES.get(fate, NEUTRAL)
            axes.barh(range(len(rows)), widths, left=left, height=0.7, color=colour, label=fate)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        label_rows(axes, [short(row["name"])[:18] for row in rows])
        axes.set_xlabel("neighbours")
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8, handlelength=1, columnspacing=1)

    return Drawing(draw, (4.6, 0.95 + 0.24 * len(rows)))


def funnel_table(funnel: Mapping) -> pd.DataFrame:
    counts = pd.DataFrame([row["counts"] for row in funnel["rows"]], columns=funnel["fates"])
    counts.insert(0, "class", [row["class"] for row in funnel["rows"]])
    return counts


def _caption(funnel: Mapping) -> str:
    count = len(funnel["rows"])
    part = f", first {FUNNEL_CLASSES} of {count} classes" if count > FUNNEL_CLASSES else ""
    return f"{funnel['title']}: neighbours per class by fate{part}."


EXHIBITS = [
    Exhibit(
        name="funnel",
        section="retrieval",
        for_each=lambda plan: plan.retrieving,
        data=funnel,
        draw=funnel_figure,
        table=funnel_table,
        caption=_caption,
        description=lambda funnel: (
            f"Stacked bars of the fates of neighbours per class for {funnel['title']}; "
            "its numbers are in the table below"
        ),
        template="report/funnel.html.j2",
    )
]
