"""What guides the diffusion model: clusters with their learned conditionings, and an image for each prompt."""

from collections.abc import Mapping, Sequence

from augbench.images.thumbnails import thumbnail
from augbench.report.drawing import Drawing, gallery_figure
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.pictures import titled_listing
from augbench.report.results import PER_CLASS, StudyResults

PROMPTS = 80  # prompts of a method of which an image is shown


def clusters(results: StudyResults) -> list[dict]:
    """Figure 10: training images of each cluster of the first class, and what its conditioning generates."""
    shown, train = results.shown[0], results.train.set_index("image_id", drop=False)
    items = []
    for method in results.plan.clustered:
        table = results.clusters
        table = table[(table["k"] == results.plan.methods[method].clusters) & (table["split"] == "train")]
        images = results.generated_and_kept(method)
        images = images[images["class"] == shown["class"]]
        rows = []
        for cluster, group in table[table["class"] == shown["class"]].groupby("cluster"):
            real = train.loc[group["image_id"].head(PER_CLASS)].itertuples(index=False)
            generated = images[(images["cluster"] == cluster).fillna(False)].head(PER_CLASS).itertuples()
            rows.append(
                {
                    "size": len(group),
                    "real": [thumbnail(row, f"training image of cluster {cluster + 1}") for row in real],
                    "generated": [thumbnail(row, f"generated for cluster {cluster + 1}") for row in generated],
                }
            )
        items.append({"title": results.plan.methods[method].title, "class": shown["name"], "rows": rows})
    return items


def _cluster_grid(item: Mapping) -> dict:
    """Clusters of a class as a grid: its training images and what the cluster's conditioning generates."""
    rows = [
        {"title": f"cluster {k} ({row['size']})", "cells": [row["real"], row["generated"]]}
        for k, row in enumerate(item["rows"], 1)
    ]
    columns = [{"class": item["class"], "name": name} for name in ("training images", "generated")]
    return {"title": item["title"], "classes": columns, "rows": rows}


def prompts(results: StudyResults) -> list[dict]:
    """Figure 11: an image for each prompt of the first class, by method."""
    return [_prompts(results, method) for method in results.plan.prompted]


def learned_words(results: StudyResults) -> list[dict]:
    """Figure 12: the same for the templates that hold a learned word, or guide a fine-tuned model."""
    return [_prompts(results, method) for method in results.plan.prompted_after_finetuning]


def _prompts(results: StudyResults, method: str) -> dict:
    shown, table = results.shown[0], results.generated_and_kept(method)
    table = table[table["class"] == shown["class"]].drop_duplicates("prompt").sort_values("prompt").head(PROMPTS)
    return {
        "title": results.plan.methods[method].title,
        "class": shown["name"],
        "source": results.files.generated[method][0],
        "pictures": [{"prompt": row.prompt} | thumbnail(row, row.prompt) for row in table.itertuples()],
    }


def _prompt_grid(item: Mapping) -> dict:
    """An image for each prompt as a grid of one column."""
    rows = [{"title": thumb["prompt"], "cells": [[thumb]]} for thumb in item["pictures"]]
    return {"title": item["title"], "classes": [{"class": item["class"], "name": item["class"]}], "rows": rows}


def _figure_of(grid):
    def draw(items: Sequence[Mapping]) -> Drawing:
        return gallery_figure([grid(item) for item in items])

    return {"draw": draw, "table": lambda items: titled_listing([grid(item) for item in items])}


EXHIBITS = [
    Exhibit(
        name="figure10",
        section="images",
        applies=lambda plan: bool(plan.clustered),
        data=clusters,
        **_figure_of(_cluster_grid),
        inline=lambda items: {},
        title="Clusters and what their conditionings generate",
        caption="Figure 10.",
        template="report/clusters.html.j2",
    ),
    Exhibit(
        name="figure11",
        section="images",
        applies=lambda plan: bool(plan.prompted),
        data=prompts,
        **_figure_of(_prompt_grid),
        inline=lambda items: {},
        title="An image for each prompt",
        caption="Figure 11: prompts that people wrote.",
        template="report/prompts.html.j2",
    ),
    Exhibit(
        name="figure12",
        section="images",
        applies=lambda plan: bool(plan.prompted_after_finetuning),
        data=learned_words,
        **_figure_of(_prompt_grid),
        inline=lambda items: {},
        title="An image for each template of a fine-tuned method",
        caption="Figure 12: templates with learned words.",
        template="report/prompts.html.j2",
    ),
]
