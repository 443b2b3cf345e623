"""Accuracy by method: Figure 1A, all methods, and Table 1."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from augbench.report.comparison import accuracy
from augbench.report.drawing import Drawing, short
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.groups import GROUPS
from augbench.report.results import StudyResults, records
from augbench.report.tables import published

PAPER_FIGURES = {"imagenet": "Figure 1B", "caltech256": "Figure 6"}  # of a study of the same data


def _bars(results: StudyResults, methods: Sequence[str]) -> dict:
    numbers = ("accuracy_mean", "accuracy_se")
    rows = [
        results.plan.named(key)
        | {name: results.summary[key][name] for name in numbers}
        | {"line": results.plan.methods[key].reference_line}
        for key in methods
    ]
    return {"rows": rows, "dataset": results.plan.dataset}


def best_of_families(results: StudyResults) -> dict:
    """The bars of Figure 1A: the target data alone, and of each family that augments its best method."""
    plan = results.plan
    families = dict.fromkeys(plan.methods[key].family for key in plan.augmenting)
    best = [results.best([key for key in plan.augmenting if plan.methods[key].family == family]) for family in families]
    return _bars(results, [plan.without] * (plan.without is not None) + best)


def all_methods(results: StudyResults) -> dict:
    return _bars(results, list(results.plan.methods))


def accuracy_figure(data: Mapping) -> Drawing:
    """Accuracies (percent) with standard errors as bars; the ``line`` of a row marks its accuracy across all bars."""
    rows = data["rows"]
    low = min(row["accuracy_mean"] for row in rows)
    high = max(row["accuracy_mean"] + (row["accuracy_se"] or 0) for row in rows)
    start = max(0.0, 5 * math.floor((low - 0.35 * (high - low) - 0.5) / 5))

    def draw(figure, ink):
        axes = figure.subplots()
        for row in rows:
            if row["line"]:  # across the bars only: between them are names
                bands = [y - 0.21 for y in range(len(rows))], [y + 0.21 for y in range(len(rows))]
                axes.vlines([row["accuracy_mean"]] * len(rows), *bands, color=ink, linestyles=row["line"], linewidth=1)
        for y, row in enumerate(rows):
            axes.barh(y, row["accuracy_mean"] - start, left=start, height=0.42, color=row["colour"])
            error = row["accuracy_se"] or 0
            if error:
                axes.errorbar(row["accuracy_mean"], y, xerr=error, color=ink, capsize=2.5, elinewidth=1, capthick=1)
            names = [short(row["title"])] + [row["family"]] * (row["title"].lower() != row["family"])
            label = " · ".join(names)
            axes.annotate(label, (start, y - 0.24), (0, 1), textcoords="offset points", va="bottom")
            # In a column of their own, where no line or whisker crosses them.
            axes.annotate(accuracy(row)[:-1], (high, y), (6, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_ylim(len(rows) - 0.6, -0.75)
        axes.set_xlim(start, high + 0.2 * (high - start))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("top-1 accuracy on the test set (%)")

    return Drawing(draw, (4.6, 0.62 + 0.43 * len(rows)))


def accuracy_table(data: Mapping) -> pd.DataFrame:
    return pd.DataFrame(data["rows"])[["method", "family", "accuracy_mean", "accuracy_se"]]


def table1(results: StudyResults) -> dict:
    """Rows of Table 1 by family, figures of the paper for the same data that no method of the study stands for, and
    methods of which classifiers ended at the most epochs allowed; of a long-tailed target its ``groups`` of classes."""
    plan = results.plan
    rows = {row["method"]: row for row in records(results.table1)}
    paper = published(results.paper_results, plan.dataset)
    return {
        "rows": [rows[key] | plan.named(key) for key in plan.methods],
        "winners": results.answer["winners"],
        "dataset": plan.dataset,
        "further": paper[~paper["method"].isin(list(plan.methods))].to_dict("records"),
        "budget": plan.settings.classifier.account,
        "zero_shot": results.zero_shot,
        "groups": [name for name in GROUPS if results.table1.get(f"{name}_classes", pd.Series([0])).any()],
        "capped": [row for row in results.summaries if row["at_cap"]],
    }


def _table1_caption(data: Mapping) -> str:
    if data["dataset"]:
        paper = "The last column holds the paper’s figures for this data set."
    else:
        paper = (
            "The last column holds the paper’s figures, which are for a ResNet-50 on 10% ImageNet: with another data "
            "set, classifier and scale, compare the order of methods, not values."
        )
    also = "".join(f" The paper also reports {row['source']}: {row['accuracy']}." for row in data["further"])
    return (
        "Accuracy per method, in percent; the standard error is over the runs, on these test images. Ratio: added "
        "images / training images. Sets: how many different sets of images the runs added; with one, the error leaves "
        f"out the spread between sets. Epochs, steps and images seen are means over the runs: {data['budget']} "
        f"{paper}{also}{_zero_shot_caption(data['zero_shot'])}"
    )


def _zero_shot_caption(clip: Mapping | None) -> str:
    if clip is None:
        return ""
    prompts = " and ".join(f"“{prompt.replace('{n}', 'NAME')}”" for prompt in clip["prompts"])
    return (
        f" CLIP zero-shot, a baseline below the methods: each of {clip['n_test']:,} test images is taken for the class "
        f"whose name, as {prompts}, has the most similar embedding. CLIP was trained on pictures of the web, and may "
        "have seen test images."
    )


def _figure1a_caption(data: Mapping) -> str:
    return (
        f"{PAPER_FIGURES.get(data['dataset'], 'Figure 1A')}: accuracy with standard error of the target data alone and "
        "of the best method in each family. Being the best of several flatters a method a little, by chance. The axis "
        "does not start at zero."
    )


def _all_methods_caption(data: Mapping) -> str:
    lines = "; ".join(f"{row['line']} line: {row['title']}" for row in data["rows"] if row["line"])
    lines = f"{lines[:1].upper()}{lines[1:]}. " if lines else ""
    return f"Accuracy with standard error over the runs, grouped by family. {lines}The axis does not start at zero."


EXHIBITS = [
    Exhibit(
        name="figure1a",
        section="accuracy",
        data=best_of_families,
        draw=accuracy_figure,
        table=accuracy_table,
        caption=_figure1a_caption,
        description="Bar chart of the best method of each family; its numbers are in Table 1 below",
    ),
    Exhibit(
        name="accuracy",
        section="methods",
        data=all_methods,
        draw=accuracy_figure,
        table=accuracy_table,
        caption=_all_methods_caption,
        description="Bar chart of accuracy by method; its numbers are in Table 1 below",
    ),
    Exhibit(name="table1", section="table1", data=table1, caption=_table1_caption, template="report/table1.html.j2"),
]
