"""Pictures of training images and of what methods add, class by class, as thumbnails for the page and the figures."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from augbench.images.thumbnails import thumbnail
from augbench.report.results import PER_CLASS, StudyResults

TRAINING = ""  # stands for the training set where a method is asked for


def pictures(results: StudyResults, method: str, row: Mapping, count: int = PER_CLASS, **limits) -> list[dict]:
    """Thumbnails of the first images of a class (``class``, ``name``) that a method adds, or of its training images.

    ``limits`` are those of :func:`augbench.images.thumbnails.thumbnail`. None where there is no image of the class.
    """
    by_class = results.train_by_class if method == TRAINING else results.added_by_class[method]
    members = by_class.get(row["class"])
    if members is None:
        return []
    title = "Training images" if method == TRAINING else results.plan.methods[method].title
    return [
        thumbnail(member, f"{title}, {row['name']}, image {place}{_text(results, member)}", **limits)
        for place, member in enumerate(members.head(count).itertuples(), 1)
    ]


def _text(results: StudyResults, member) -> str:
    """The prompt or the caption of an image, where it has one."""
    if pd.notna(member.prompt) and member.prompt:
        return f", prompt: {member.prompt}"
    return f", caption: {results.captions[member.url]}" if member.url in results.captions else ""


def grid(results: StudyResults, methods: Iterable[str], shown: Sequence[Mapping]) -> dict:
    """Pictures in cells: a column for each class, a row for each method or for the training set."""
    rows = []
    for method in methods:
        head = {"title": "Training images", "family": ""} if method == TRAINING else results.plan.named(method)
        rows.append(head | {"cells": [pictures(results, method, row) for row in shown]})
    return {"classes": list(shown), "rows": rows}


def listing(grid: Mapping) -> pd.DataFrame:
    """A grid's data: which images it shows, with their text."""
    rows = [
        {"row": row["title"], "class": shown["class"], "place": place, "image_id": thumb["image_id"]}
        | {"text": thumb["alt"]}
        for row in grid["rows"]
        for shown, cell in zip(grid["classes"], row["cells"], strict=True)
        for place, thumb in enumerate(cell, 1)
    ]
    return pd.DataFrame(rows, columns=["row", "class", "place", "image_id", "text"])


def titled_listing(grids: Sequence[Mapping]) -> pd.DataFrame:
    """The :func:`listing` of several grids, each under its ``title``."""
    tables = [listing(each) for each in grids]
    for table, each in zip(tables, grids, strict=True):
        table.insert(0, "title", each["title"])
    return pd.concat(tables, ignore_index=True)
