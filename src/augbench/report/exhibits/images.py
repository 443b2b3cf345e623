"""What the methods add: galleries of the first classes."""

from collections.abc import Mapping

import pandas as pd

from augbench import images
from augbench.images.thumbnails import encoded
from augbench.report.drawing import picture_figure
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.pictures import TRAINING, grid, listing
from augbench.report.results import StudyResults

DOMAINS = 3  # classes for which prompted and fine-tuned images are compared
VARIATIONS = 2  # of a class


def gallery(results: StudyResults) -> dict:
    """Figure 4: the first training images of the first classes, and the first that each method adds."""
    shown = results.shown
    return grid(results, [TRAINING, *results.plan.adding], shown) | {"all": len(results.kept)}


def _gallery_caption(gallery: Mapping) -> str:
    count = len(gallery["classes"])
    classes = f"the first {count} of {gallery['all']} classes" if count < gallery["all"] else "each class"
    return (
        f"The first images of {classes}, as one classifier run saw them. The text alternative of a picture "
        "holds its prompt or caption."
    )


def variations(results: StudyResults) -> dict:
    """Figure 3: training images, what the first method that starts from images made of them, and their differences.

    The absolute difference of each pair is shown as it is; ``pairs`` also has its mean over pixels and channels (of
    255).
    """
    method, shown = results.plan.varying[0], results.shown
    title = results.plan.methods[method].title
    originals = results.train.drop_duplicates("image_id").set_index("image_id", drop=False)
    added, rows, pairs = (
        results.added_by_class[method],
        {name: [] for name in ("Training images", title, "Difference")},
        [],
    )
    for row in shown:
        cells = {name: [] for name in rows}
        for member in added.get(row["class"], originals.iloc[:0]).head(VARIATIONS).itertuples():
            if pd.isna(member.start_image):
                continue
            pair = _difference(originals.loc[member.start_image], member, f"{title}, {row['name']}")
            if pair:
                *thumbs, mean = pair
                for name, thumb in zip(rows, thumbs, strict=True):
                    cells[name].append(thumb)
                ids = {"image_id": member.image_id, "original_id": member.start_image}
                pairs.append({"class": row["class"], **ids, "mean_difference": mean})
        for name in rows:
            rows[name].append(cells[name])
    return {
        "title": title,
        "classes": shown,
        "rows": [{"title": name, "family": "", "cells": cells} for name, cells in rows.items()],
        "pairs": pairs,
    }


def _difference(original, variation, text: str) -> tuple[dict, dict, dict, float] | None:
    """Thumbnails of an image, of its variation and of their difference, and its mean; None when one cannot be read."""
    from PIL import ImageChops, ImageStat

    try:
        after = images.load(variation)
        before = images.load(original).resize(after.size)
    except (OSError, ValueError):
        return None
    difference = ImageChops.difference(before, after)
    mean = round(sum(ImageStat.Stat(difference).mean) / 3, 2)
    first, second, third = (
        {"alt": alt, "image_id": row.image_id} | encoded(picture)
        for alt, row, picture in (
            (f"{text}: the training image", original, before),
            (f"{text}: its variation", variation, after),
            (f"{text}: absolute difference, {mean} of 255 in the mean", variation, difference),
        )
    )
    return first, second, third, mean


def variations_table(data: Mapping) -> pd.DataFrame:
    return pd.DataFrame(data["pairs"], columns=["class", "image_id", "original_id", "mean_difference"])


def domains(results: StudyResults) -> dict:
    """Figure 7: training images beside those of the best prompted and the best fine-tuned method, for the classes that
    fine-tuning helps most, by their accuracy."""
    prompted, tuned = results.best(results.plan.prompted), results.best(results.plan.finetuned)
    means = results.per_class.pivot(index="class", columns="method", values="accuracy_mean")
    gains = (means[tuned] - means[prompted]).dropna().to_dict()
    shown = sorted(results.kept, key=lambda row: -gains.get(row["class"], 0.0))[:DOMAINS]
    return grid(results, [TRAINING, prompted, tuned], shown)


EXHIBITS = [
    Exhibit(
        name="figure4",
        section="images",
        data=gallery,
        draw=picture_figure,
        table=listing,
        inline=lambda gallery: {},
        applies=lambda plan: bool(plan.adding),
        caption=_gallery_caption,
        description="Gallery of images per method and class",
        template="report/gallery.html.j2",
    ),
    Exhibit(
        name="figure3",
        section="images",
        applies=lambda plan: bool(plan.varying),
        data=variations,
        draw=picture_figure,
        table=variations_table,
        inline=lambda variations: {},
        title="Variations of training images",
        caption="Figure 3: training images, the variation of each, and the absolute difference, as it is.",
        description="Training images and their variations",
        template="report/grid.html.j2",
    ),
    Exhibit(
        name="figure7",
        section="images",
        applies=lambda plan: bool(plan.prompted and plan.finetuned),
        data=domains,
        draw=picture_figure,
        table=listing,
        inline=lambda grid: {},
        title="Prompted and fine-tuned",
        caption=(
            "Figure 7: training images, and images of the best prompted and the best fine-tuned method, for the "
            "classes that fine-tuning helps most."
        ),
        description="Training images beside prompted and fine-tuned ones",
        template="report/grid.html.j2",
    ),
]
