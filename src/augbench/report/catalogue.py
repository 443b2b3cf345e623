"""The figures of a study: which there are, how each is drawn, and the table of its data."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench.core import files
from augbench.report import comparison, galleries
from augbench.report.comparison import ADDING, GENERATED
from augbench.report.figures import (
    FAMILY_COLOURS,
    OTHER_COLOUR,
    Drawing,
    accuracy_figure,
    curve_figure,
    differences_figure,
    extremes_figure,
    funnel_figure,
    gallery_figure,
    loss_figure,
    panels_figure,
    pdf,
    picture_figure,
    scaling_figure,
    svg,
)

KINDS = ("svg", "pdf", "csv")
REAL = {"none", "more_real"}  # where methods start that train on real images alone


def names(methods: Mapping[str, Mapping], ratios: Mapping[str, Sequence[float]]) -> list[str]:
    """The figures of a study with these methods (rows of the method table), each at its augmentation ratios."""
    starts = {row.get("start") for row in methods.values()}
    trained = [row for row in methods.values() if row.get("trained")]
    prompted = [row for row in methods.values() if row.get("start") == "noise" and not row.get("trained")]
    learned = [row for row in trained if row.get("start") == "noise" and "conditioning" not in row["trained"]]
    adds = bool(starts & ADDING)
    compares = ("none" in starts and len(methods) > 1) or ("pool" in starts and bool(starts & GENERATED))
    wanted = {
        "figure1a": True,
        "accuracy": True,
        "differences": compares,
        "figure3": "image" in starts,
        "figure4": adds,
        "figure5a": adds and "none" in starts,
        "figure5b": any(len(ratios[key]) > 1 for key, row in methods.items() if row.get("start") in ADDING),
        "figure7": bool(prompted) and any(row.get("start") == "noise" for row in trained),
        "figure8": "pool" in starts,
        "figure9": bool(starts & GENERATED),
        "figure10": any(row.get("clusters", 1) > 1 for row in methods.values()),
        "figure11": bool(prompted),
        "figure12": bool(learned),
        "figure13": bool(trained),
        "losses": bool(trained),
        "training": True,
    }
    funnels = [f"funnel-{key}" for key, row in methods.items() if row.get("start") == "pool"]
    return [name for name, there in wanted.items() if there] + funnels


def drawings(study: Mapping) -> dict[str, tuple[Drawing, pd.DataFrame]]:
    """Each figure of a study (from ``report.gather``) with its data; a figure without data is left out."""
    columns = ["method", "family", "accuracy_mean", "accuracy_se"]
    made = {
        name: (accuracy_figure(rows), pd.DataFrame(rows)[columns])
        for name, rows in {"figure1a": study["figure1a"], "accuracy": study["summaries"]}.items()
    }
    if found := study["differences"]:
        rows = [row for part in found for row in part["rows"]]
        made["differences"] = differences_figure(found), pd.DataFrame(rows)[comparison.DIFFERENCES]
    if found := study["variations"]:
        made["figure3"] = picture_figure(found), pd.DataFrame(found["pairs"])
    if found := study["gallery"]["rows"][1:]:
        made["figure4"] = picture_figure(study["gallery"]), galleries.listing(study["gallery"])
    if found := study["improvements"]:
        rows = [row | {"method": line["method"]} for line in found for row in line["rows"]]
        made["figure5a"] = extremes_figure(found), pd.DataFrame(rows)
    if found := study["scaling"]:
        rows = [row for line in found["lines"] for row in line["rows"]]
        made["figure5b"] = scaling_figure(found["lines"], found["without"]), pd.DataFrame(rows)
    if found := study["domains"]:
        made["figure7"] = picture_figure(found), galleries.listing(found)
    for name, starts in {"figure8": {"pool"}, "figure9": GENERATED}.items():
        if found := [item for item in study["audit"] if item["start"] in starts]:
            made[name] = picture_figure(_leaks(found)), _leak_table(found)
    if found := study["clusters"]:
        made["figure10"] = _pictures([_clusters(item) for item in found])
    for name, trained in {"figure11": False, "figure12": True}.items():
        if found := [item for item in study["templates"] if item["trained"] == trained]:
            made[name] = _pictures([_prompts(item) for item in found])
    if found := study["finetuned"]:
        made["figure13"] = _pictures([_epochs(item) for item in found])
        made["losses"] = panels_figure([(item["title"], losses(item)) for item in found]), _losses(found)
    if found := study["curves"]:
        parts = [(item["title"], curve_figure(item, limits(found))) for item in found]
        made["training"] = panels_figure(parts), _curves(found)
    for found in study["funnels"]:
        counts = pd.DataFrame([row["counts"] for row in found["rows"]], columns=found["fates"])
        counts.insert(0, "class", [row["class"] for row in found["rows"]])
        made[f"funnel-{found['method']}"] = funnel_figure(found), counts
    return made


def write(study: Mapping, folder: str | Path, declared: Sequence[str] = ()) -> None:
    """Write every figure of a study as SVG and PDF, and its data as CSV, to ``folder``/figures.

    The folder is written as a whole: no figure stays of other methods that the study had before. Raises RuntimeError
    when one of the ``declared`` figures cannot be drawn.
    """
    drawn = drawings(study)
    if lost := [name for name in declared if name not in drawn]:
        raise RuntimeError(f"study {study['study']}: there are no data for {', '.join(lost)}")
    with files.whole(Path(folder) / "figures") as place:
        place.mkdir()
        for name, (drawing, table) in drawn.items():
            (place / f"{name}.svg").write_text(svg(drawing), encoding="utf-8")
            (place / f"{name}.pdf").write_bytes(pdf(drawing))
            files.write_csv(place / f"{name}.csv", table)


def losses(item: Mapping) -> Drawing:
    """The losses of a fine-tuned method's candidates."""
    colour = FAMILY_COLOURS.get(item["family"], OTHER_COLOUR)
    return loss_figure(item["histories"], item["rate"], item["chosen"]["epoch"], colour)


def limits(curves: Sequence[Mapping]) -> tuple[float, float]:
    """The range of accuracies (percent) that all training curves share."""
    values = [value for item in curves for run in item["runs"] for value in run["accuracy"]]
    return max(0.0, min(values) - 3), min(100.0, max(values)) + 3


def _leaks(found: Sequence[Mapping]) -> dict:
    """The closest duplicate candidates of the test split as a grid: a row per method, added image and test image."""
    most = max(1, *(len(item["leaks"]) for item in found))
    rows = [
        {
            "title": item["title"],
            "cells": [[pair["added"], pair["reference"]] for pair in item["leaks"]]
            + [[]] * (most - len(item["leaks"])),
        }
        for item in found
    ]
    return {"classes": [{"class": f"{k}", "name": f"{k}."} for k in range(1, most + 1)], "rows": rows}


def _leak_table(found: Sequence[Mapping]) -> pd.DataFrame:
    rows = [
        {"method": item["method"], "place": place, "distance": pair["distance"]}
        | {f"{side}_id": pair[side]["image_id"] for side in ("added", "reference")}
        for item in found
        for place, pair in enumerate(item["leaks"], 1)
    ]
    return pd.DataFrame(rows, columns=["method", "place", "distance", "added_id", "reference_id"])


def _epochs(item: Mapping) -> dict:
    """Images of a fine-tuned method's candidates as a grid: a row per epoch, a column per class."""
    rows = [
        {"title": f"epoch {row['epoch']}{' (chosen)' * row['chosen']}", "cells": row["pictures"]}
        for row in item["candidates"]
    ]
    return {"title": item["title"], "classes": item["classes"], "rows": rows}


def _clusters(item: Mapping) -> dict:
    """Clusters of a class as a grid: its training images and what the cluster's conditioning generates."""
    rows = [
        {"title": f"cluster {k} ({row['size']})", "cells": [row["real"], row["generated"]]}
        for k, row in enumerate(item["rows"], 1)
    ]
    columns = [{"class": item["class"], "name": name} for name in ("training images", "generated")]
    return {"title": item["title"], "classes": columns, "rows": rows}


def _prompts(item: Mapping) -> dict:
    """An image for each prompt as a grid of one column."""
    rows = [{"title": thumb["prompt"], "cells": [[thumb]]} for thumb in item["pictures"]]
    return {"title": item["title"], "classes": [{"class": item["class"], "name": item["class"]}], "rows": rows}


def _pictures(grids: Sequence[Mapping]) -> tuple[Drawing, pd.DataFrame]:
    tables = [galleries.listing(grid) for grid in grids]
    for table, grid in zip(tables, grids, strict=True):
        table.insert(0, "title", grid["title"])
    return gallery_figure(grids), pd.concat(tables, ignore_index=True)


def _losses(found: Sequence[Mapping]) -> pd.DataFrame:
    tables = [
        pd.DataFrame(history).assign(method=item["method"], rate=rate)
        for item in found
        for rate, history in item["histories"].items()
    ]
    return pd.concat(tables, ignore_index=True)


def _curves(found: Sequence[Mapping]) -> pd.DataFrame:
    tables = [
        pd.DataFrame(run).assign(method=item["method"], run=k)
        for item in found
        for k, run in enumerate(item["runs"], 1)
    ]
    return pd.concat(tables, ignore_index=True)
