"""Fine-tuning: its losses, its candidates, and which of them was selected."""

from collections.abc import Mapping, Sequence

import pandas as pd

from augbench.images.thumbnails import thumbnail
from augbench.report.drawing import Drawing, gallery_figure, panels_figure
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.pictures import titled_listing
from augbench.report.results import StudyResults

EXAMPLES = 4  # classes of which a candidate shows an image


def candidates(results: StudyResults) -> list[dict]:
    """The candidates of each fine-tuned method, and images of each: Figure 13."""
    return [_candidates(results, method) for method in results.plan.finetuned]


def _candidates(results: StudyResults, method: str) -> dict:
    selection, generated, shown = results.selection(method), results.generated(method), results.shown[:EXAMPLES]
    rows = []
    for row in selection["screened"]:
        mine = generated[generated["candidate"] == row["candidate"]]
        cells = []
        for each in shown:
            first = mine[mine["class"] == each["class"]].head(1).itertuples()
            cells.append([thumbnail(member, f"{each['name']}, epoch {row['epoch']}") for member in first])
        rows.append(row | {"pictures": cells, "chosen": row["candidate"] == selection["candidate"]})
    return results.plan.named(method) | {"candidates": rows, "classes": shown}


def _grid(item: Mapping) -> dict:
    """Images of a method's candidates as a grid: a row per epoch, a column per class."""
    rows = [
        {"title": f"epoch {row['epoch']}{' (chosen)' * row['chosen']}", "cells": row["pictures"]}
        for row in item["candidates"]
    ]
    return {"title": item["title"], "classes": item["classes"], "rows": rows}


def candidates_figure(items: Sequence[Mapping]) -> Drawing:
    return gallery_figure([_grid(item) for item in items])


def losses(results: StudyResults) -> list[dict]:
    """The losses of each fine-tuned method by learning rate, with its candidates."""
    items = []
    for item in results.once(candidates):
        selection = results.selection(item["method"])
        histories = {rate: _finite(table) for rate, table in results.finetunings(item["method"]).items()}
        items.append(
            item
            | {
                "rate": selection["candidate"].split("_", 1)[0],
                "rates": selection["rates"],
                "edge": selection["edge"],
                "epoch": selection["epoch"],
                "histories": {rate: table.to_dict("list") for rate, table in histories.items()},
                "source": results.files.selections[item["method"]],
            }
        )
    return items


def _finite(history: pd.DataFrame) -> pd.DataFrame:
    """The epochs of a fine-tuning without the one in which it diverged."""
    return history[history["validation_loss"] < float("inf")]


def loss_figure(item: Mapping) -> Drawing:
    """Losses over the epochs of a fine-tuning, per learning rate; the chosen epoch is marked.

    ``histories`` maps a learning rate to lists ``epoch``, ``train_loss`` and ``validation_loss``.
    """

    def draw(figure, ink):
        axes = figure.subplots()
        for rate, history in item["histories"].items():
            alpha = 1 if rate == item["rate"] else 0.35
            for key, style in {"train_loss": (0, (2, 2)), "validation_loss": "solid"}.items():
                line = {"color": item["colour"], "linestyle": style, "linewidth": 1.1, "alpha": alpha}
                axes.plot(history["epoch"], history[key], **line)
        axes.axvline(item["epoch"], color=ink, linewidth=0.8)
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss", fontsize=8)

    return Drawing(draw, (2.9, 1.9))


def losses_figure(items: Sequence[Mapping]) -> Drawing:
    return panels_figure([(item["title"], loss_figure(item)) for item in items])


def losses_table(items: Sequence[Mapping]) -> pd.DataFrame:
    tables = [
        pd.DataFrame(history).assign(method=item["method"], rate=rate)
        for item in items
        for rate, history in item["histories"].items()
    ]
    return pd.concat(tables, ignore_index=True)


EXHIBITS = [
    Exhibit(
        name="losses",
        section="finetuning",
        applies=lambda plan: bool(plan.finetuned),
        data=losses,
        draw=losses_figure,
        table=losses_table,
        inline=lambda items: {item["method"]: loss_figure(item) for item in items},
        caption="All losses.",
        template="report/finetuning.html.j2",
    ),
    Exhibit(
        name="figure13",
        section="finetuning",
        applies=lambda plan: bool(plan.finetuned),
        data=lambda results: results.once(candidates),
        draw=candidates_figure,
        table=lambda items: titled_listing([_grid(item) for item in items]),
        inline=lambda items: {},
        caption="Figure 13: images over the epochs, as in the tables of candidates.",
        template="report/figure.html.j2",
    ),
]
