"""The report's pictures: what methods add, make of training images, and learn, class by class."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import files
from augbench.images.thumbnails import encoded, thumbnail

PER_CLASS = 4  # images per class and method
EXAMPLES = 4  # classes of which a candidate shows an image
PROMPTS = 80  # prompts of a method of which an image is shown


class Sets:
    """The image tables that the report shows, by class, each read once: the training set's and what methods add.

    Keys are methods, and the empty string for the training set. Of a method the first resampled set is shown.
    """

    def __init__(self, folder: Path, summaries: Sequence[Mapping], ratio: str):
        paths = {"": folder / "dataset" / "train.parquet"}
        for row in summaries:
            paths[row["method"]] = folder / "augmentation" / row["method"] / ratio / "split-1.parquet"
        self.paths = {key: path for key, path in paths.items() if path.exists()}
        self.titles = {"": "Training images"} | {row["method"]: row["title"] for row in summaries}
        self.families = {"": ""} | {row["method"]: row["family"] for row in summaries}
        self.groups = {key: _by_class(images.read(path), bool(key)) for key, path in self.paths.items()}
        self.captions = _captions(folder)

    def pictures(self, key: str, about: Mapping, count: int = PER_CLASS, **limits) -> list[dict]:
        """Thumbnails of the first images of a class (``class``, ``name``); none where the set has none."""
        members = self.groups.get(key, {}).get(about["class"])
        if members is None:
            return []
        return _cell(members.head(count), self.titles[key], about["name"], self.captions, limits)

    def grid(self, keys: Iterable[str], shown: Sequence[Mapping], count: int = PER_CLASS) -> dict:
        """Columns: classes; rows: sets; cells: their first images."""
        return {
            "classes": list(shown),
            "rows": [
                {
                    "title": self.titles[key],
                    "family": self.families[key],
                    "cells": [self.pictures(key, about, count) for about in shown],
                }
                for key in keys
                if key in self.paths
            ],
        }


def _by_class(table: pd.DataFrame, first: bool) -> dict[str, pd.DataFrame]:
    """An image table by class; only the ``first`` images of each where no more are shown."""
    groups = table.groupby("class")
    return dict(list(groups.head(PER_CLASS).groupby("class") if first else groups))


def _cell(members: pd.DataFrame, title: str, name: str, captions: Mapping, limits: Mapping) -> list[dict]:
    found = []
    for i, row in enumerate(members.itertuples(), 1):
        if pd.notna(row.prompt) and row.prompt:
            about = f", prompt: {row.prompt}"
        elif row.url in captions:
            about = f", caption: {captions[row.url]}"
        else:
            about = ""
        found.append(thumbnail(row, f"{title}, {name}, image {i}{about}", **limits))
    return found


def variations(sets: Sets, summary: Mapping, shown: Sequence[Mapping], start: str) -> dict | None:
    """Figure 3: training images, what a method made of them, and their differences; None for other methods.

    The absolute difference of each pair is shown as it is, and its mean over pixels and channels (of 255) told.
    """
    if start != "image" or summary["method"] not in sets.groups:
        return None
    rows = {title: [] for title in ("Training images", summary["title"], "Difference")}
    pairs = []
    for about in shown:
        real, made = (sets.groups[key].get(about["class"]) for key in ("", summary["method"]))
        cells = {title: [] for title in rows}
        for row in () if real is None or made is None else made.head(2).itertuples():
            # An image's number says from which training image of its class it started.
            origin = real.iloc[int(row.image_id.rsplit("-", 1)[1]) % len(real)]
            pair = _difference(origin, row, f"{summary['title']}, {about['name']}")
            if pair:
                *thumbs, mean = pair
                for title, thumb in zip(rows, thumbs, strict=True):
                    cells[title].append(thumb)
                ids = {"image_id": row.image_id, "original_id": origin["image_id"]}
                pairs.append({"class": about["class"], **ids, "mean_difference": mean})
        for title in rows:
            rows[title].append(cells[title])
    return {
        "method": summary["method"],
        "title": summary["title"],
        "classes": list(shown),
        "rows": [{"title": title, "family": "", "cells": cells} for title, cells in rows.items()],
        "pairs": pairs,
    }


def _difference(origin, made, text: str) -> tuple[dict, dict, dict, float] | None:
    """Thumbnails of an image, of what was made of it and of their difference, and its mean."""
    from PIL import ImageChops, ImageStat

    try:
        result = images.load(made)
        original = images.load(origin).resize(result.size)
    except (OSError, ValueError):
        return None
    difference = ImageChops.difference(original, result)
    mean = round(sum(ImageStat.Stat(difference).mean) / 3, 2)
    thumbs = [
        {"alt": alt, "image_id": row.image_id} | encoded(picture)
        for alt, row, picture in (
            (f"{text}: the training image", origin, original),
            (f"{text}: made of it", made, result),
            (f"{text}: absolute difference, {mean} of 255 in the mean", made, difference),
        )
    ]
    return *thumbs, mean


def listing(grid: Mapping) -> pd.DataFrame:
    """A grid's data: which images it shows, with their text."""
    rows = [
        {"row": row["title"], "class": about["class"], "place": place, "image_id": thumb["image_id"]}
        | {"text": thumb["alt"]}
        for row in grid["rows"]
        for about, cell in zip(grid["classes"], row["cells"], strict=True)
        for place, thumb in enumerate(cell, 1)
    ]
    return pd.DataFrame(rows, columns=["row", "class", "place", "image_id", "text"])


def finetuned(
    folder: Path, summary: Mapping, shown: Sequence[Mapping], generated: Mapping, methods: Mapping
) -> dict | None:
    """The candidates of a fine-tuned method, why one was chosen, and images of each; None for another method."""
    if not methods[summary["method"]].get("trained"):
        return None
    selection = files.read_json(folder / "selection" / f"{summary['method']}.json")
    runs = [folder / "finetune" / summary["method"] / rate for rate in selection["rates"]]
    histories = {run.name: _finite(pd.read_csv(run / "history.csv")) for run in runs}
    made = images.read(*generated[summary["method"]])
    candidates = []
    for row in selection["screened"]:
        cells = []
        of = made[made["candidate"] == row["candidate"]]
        for about in shown[:EXAMPLES]:
            members = of[of["class"] == about["class"]].head(1).itertuples()
            cells.append([thumbnail(member, f"{about['name']}, epoch {row['epoch']}") for member in members])
        candidates.append(row | {"pictures": cells, "chosen": row["candidate"] == selection["candidate"]})
    return {
        "method": summary["method"],
        "title": summary["title"],
        "family": summary["family"],
        "rate": selection["candidate"].split("_", 1)[0],
        "rates": selection["rates"],
        "edge": selection["edge"],
        "histories": {name: history.to_dict("list") for name, history in histories.items()},
        "chosen": selection,
        "candidates": candidates,
        "classes": list(shown[:EXAMPLES]),
    }


def _finite(history: pd.DataFrame) -> pd.DataFrame:
    """The epochs of a fine-tuning without the one in which it diverged."""
    return history[history["validation_loss"] < float("inf")]


def _made(folder: Path, method: str, generated: Mapping, methods: Mapping) -> pd.DataFrame:
    """The images of a generating method, without those of candidates that were not chosen."""
    table = images.read(*generated[method])
    if not methods[method].get("trained"):
        return table
    return table[table["candidate"] == files.read_json(folder / "selection" / f"{method}.json")["candidate"]]


def templates(
    folder: Path, summary: Mapping, shown: Sequence[Mapping], generated: Mapping, methods: Mapping
) -> dict | None:
    """One image for each prompt of the first class (Figures 11 and 12); None for methods that
    learn what guides them."""
    row = methods[summary["method"]]
    if row.get("start") != "noise" or "conditioning" in row.get("trained", []):
        return None
    table = _made(folder, summary["method"], generated, methods)
    table = table[table["class"] == shown[0]["class"]].drop_duplicates("prompt").sort_values("prompt")
    return {
        "title": summary["title"],
        "trained": bool(row.get("trained")),
        "class": shown[0]["name"],
        "source": str(generated[summary["method"]][0]),
        "pictures": [
            {"prompt": member.prompt} | thumbnail(member, member.prompt) for member in table.head(PROMPTS).itertuples()
        ],
    }


def clusters(
    folder: Path, summary: Mapping, shown: Sequence[Mapping], generated: Mapping, methods: Mapping
) -> dict | None:
    """Training images of each cluster of the first class beside what its conditioning generates (Figure 10)."""
    k = methods[summary["method"]].get("clusters", 1)
    if k < 2:
        return None
    members = pd.read_parquet(folder / "finetune" / "clusters.parquet")
    members = members[(members["k"] == k) & (members["split"] == "train") & (members["class"] == shown[0]["class"])]
    train = images.read(folder / "dataset" / "train.parquet").set_index("image_id", drop=False)
    made = _made(folder, summary["method"], generated, methods)
    made = made[made["class"] == shown[0]["class"]]
    rows = []
    for cluster, group in members.groupby("cluster"):
        text = f"(cluster {cluster + 1} of "
        real = train.loc[group["image_id"].head(PER_CLASS)].itertuples(index=False)
        generated = made[made["prompt"].str.contains(text, regex=False)].head(PER_CLASS).itertuples()
        rows.append(
            {
                "size": len(group),
                "real": [thumbnail(row, f"training image of cluster {cluster + 1}") for row in real],
                "generated": [thumbnail(row, f"generated for cluster {cluster + 1}") for row in generated],
            }
        )
    return {"title": summary["title"], "class": shown[0]["name"], "rows": rows}


def _captions(folder: Path) -> dict[str, str]:
    tables = [
        pd.read_parquet(path, columns=["url", "caption"]).dropna() for path in folder.glob("retrieval/*/ledger.parquet")
    ]
    return {url: caption for table in tables for url, caption in zip(table["url"], table["caption"], strict=True)}
