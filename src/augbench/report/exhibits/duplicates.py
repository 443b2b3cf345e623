"""Duplicate candidates among the added images, and what people said about them."""

from collections.abc import Mapping, Sequence

import pandas as pd

from augbench.audit import verdicts
from augbench.images.thumbnails import thumbnail
from augbench.report.drawing import Drawing, picture_figure
from augbench.report.exhibits.exhibit import Exhibit
from augbench.report.results import StudyResults

PAIRS = 10  # closest candidate pairs per method


def audit(results: StudyResults) -> list[dict]:
    """The audit of each method that adds images, with its closest candidate pairs."""
    items = []
    for method in results.plan.adding:
        candidates = results.candidates(method)
        items.append(
            results.audit(method)
            | results.plan.named(method)
            | {"pairs": _closest(candidates), "candidates": len(candidates), "review": results.files.reviews[method]}
            | {"source": results.files.candidates[method]}
            | {"open": results.plan.methods[method].start.is_retrieved}
        )
    return items


def _closest(candidates: pd.DataFrame) -> list[dict]:
    """Pictures of both sides of the candidate pairs with the smallest distances."""
    pairs = []
    for row in candidates.sort_values("distance", kind="stable").head(PAIRS).itertuples():
        both = {}
        for side in ("added", "reference"):
            columns = {name: getattr(row, f"{side}_{name}") for name in ("path", "offset", "length")}
            place = pd.Series({"image_id": getattr(row, f"{side}_id")} | columns)
            text = "added" if side == "added" else f"{row.reference_set} image"
            both[side] = thumbnail(place, f"{text} {place.image_id}")
        pairs.append(both | {"distance": int(row.distance), "set": row.reference_set})
    return pairs


def _leaks(results: StudyResults, methods: Sequence[str]) -> list[dict]:
    items = []
    for method in methods:
        table = results.candidates(method)
        pairs = _closest(table[table["reference_set"] == "test"])
        items.append(results.plan.named(method) | {"leaks": pairs})
    return items


def leaks_figure(items: Sequence[Mapping]) -> Drawing:
    """The closest duplicate candidates of the test split: a row per method, pairs of added image and test image."""
    most = max(1, *(len(item["leaks"]) for item in items))
    rows = [
        {
            "title": item["title"],
            "cells": [[pair["added"], pair["reference"]] for pair in item["leaks"]]
            + [[]] * (most - len(item["leaks"])),
        }
        for item in items
    ]
    return picture_figure({"classes": [{"class": f"{k}", "name": f"{k}."} for k in range(1, most + 1)], "rows": rows})


def leaks_table(items: Sequence[Mapping]) -> pd.DataFrame:
    rows = [
        {"method": item["method"], "place": place, "distance": pair["distance"]}
        | {f"{side}_id": pair[side]["image_id"] for side in ("added", "reference")}
        for item in items
        for place, pair in enumerate(item["leaks"], 1)
    ]
    return pd.DataFrame(rows, columns=["method", "place", "distance", "added_id", "reference_id"])


def reviews(results: StudyResults) -> list[dict]:
    """What people's verdicts on duplicate candidates say, of the methods that have some.

    Raises ValueError with one sentence when the verdicts do not fit the candidates.
    """
    settings, items = results.plan.settings, []
    for method, path in results.files.verdicts.items():
        candidates, audit = results.candidates(method), results.audit(method)
        sizes = {name: counts["images"] for name, counts in audit["references"].items()}
        sampling = settings.audit.inspected, settings.judged_in_full, settings.seed, method
        sets = verdicts.summarise(candidates, verdicts.read(path, candidates), sizes, *sampling)
        sets = {name: counts | {"tested": name in ("test", *settings.evaluate)} for name, counts in sets.items()}
        items.append(results.plan.named(method) | {"source": path, "added": audit["added"], "sets": sets})
    return items


EXHIBITS = [
    Exhibit(
        name="audit",
        section="audit",
        applies=lambda plan: bool(plan.adding),
        data=lambda results: results.once(audit),
        caption=(
            "Duplicate candidates by method and reference set, of the images that Table 1’s runs add. Share: reference "
            "images with a candidate."
        ),
        template="report/audit.html.j2",
    ),
    Exhibit(
        name="figure8",
        section="audit",
        applies=lambda plan: bool(plan.retrieving),
        data=lambda results: _leaks(results, results.plan.retrieving),
        draw=leaks_figure,
        table=leaks_table,
        inline=lambda items: {},
        caption="Figure 8: the closest candidates of the test set, retrieved images.",
    ),
    Exhibit(
        name="figure9",
        section="audit",
        applies=lambda plan: bool(plan.generating),
        data=lambda results: _leaks(results, results.plan.generating),
        draw=leaks_figure,
        table=leaks_table,
        inline=lambda items: {},
        caption="Figure 9: the closest candidates of the test set, generated images.",
    ),
    Exhibit(
        name="pairs",
        section="audit",
        applies=lambda plan: bool(plan.adding),
        data=lambda results: results.once(audit),
        caption="Left: added image; right: reference image.",
        template="report/pairs.html.j2",
    ),
    Exhibit(
        name="reviews",
        section="audit",
        applies=lambda plan: bool(plan.adding),
        data=reviews,
        caption="Judged candidate pairs by method and reference set, of the images that Table 1’s runs add.",
        template="report/reviews.html.j2",
    ),
]
