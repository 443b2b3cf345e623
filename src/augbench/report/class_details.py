"""What the report tells of each class: accuracy of each method, pictures, confusions, and who gains (Figure 5A)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench.report import comparison, per_class
from augbench.report.galleries import PER_CLASS, Sets

EXTREMES = 5  # worst and best classes of Figure 5A
PICTURES = 8000  # in the rows of all classes together; it bounds the size of the page
SIDE, BYTES = 64, 2000  # pixels and bytes of each of them
SMALL_STUDY = 50  # classes up to which their pictures have the usual size


def compared(summaries: Sequence[Mapping]) -> list[Mapping]:
    """The two methods of Figure 5A, where there are such: the best that generates and the best that retrieves."""
    kinds = comparison.GENERATED, {"pool"}
    found = [comparison.best([row for row in summaries if row["start"] in kind]) for kind in kinds]
    return [row for row in found if row]


def improvements(folder: Path, summaries: Sequence[Mapping], shown: Sequence[Mapping], sets: Sets) -> list[dict] | None:
    """Figure 5A: per compared method its classes by improvement, and the worst and best of them with pictures.

    ``shown`` are all classes that take part (class, name). None for a study without the target data alone, or without
    a method to compare.
    """
    without = next((row["method"] for row in summaries if row["start"] == "none"), None)
    path = folder / "tables" / "per_class.csv"
    methods = compared(summaries)
    if without is None or not methods or not path.exists():
        return None
    table = per_class.improvements(_read(path), [row["method"] for row in methods], without)
    names = {about["class"]: about["name"] for about in shown}
    lines = []
    for method in methods:
        rows = table[table["method"] == method["method"]].to_dict("records")
        rows = [row | {"name": names.get(row["class"], row["class"])} for row in rows]
        count = min(EXTREMES, len(rows) // 2)
        lines.append(
            {
                "method": method["method"],
                "title": method["title"],
                "family": method["family"],
                "rows": rows,
                "worst": [_extreme(row, method["method"], sets) for row in rows[:count]],
                "best": [_extreme(row, method["method"], sets) for row in rows[::-1][:count]],
                "worse": sum(row["improvement"] < 0 for row in rows),
            }
        )
    return lines


def _extreme(row: Mapping, method: str, sets: Sets) -> dict:
    """A class with one of its training images and one that the method adds."""
    return dict(row) | {"pictures": sets.pictures("", row, 1) + sets.pictures(method, row, 1)}


def gains(folder: Path, method: str, other: str) -> dict[str, float]:
    """Class -> accuracy of a method minus that of another, percentage points; empty without the table."""
    path = folder / "tables" / "per_class.csv"
    if not path.exists():
        return {}
    table = per_class.improvements(_read(path), [method], other)
    return dict(zip(table["class"], table["improvement"], strict=True))


def details(folder: Path, summaries: Sequence[Mapping], shown: Sequence[Mapping], sets: Sets) -> list[dict] | None:
    """A row per class of ``shown``: accuracy per method (percent), most frequent confusions and pictures.

    None for a study without the tables of rule per_class.
    """
    tables = [folder / "tables" / f"{name}.csv" for name in ("per_class", "confusions")]
    if not all(path.exists() for path in tables):
        return None
    names = {about["class"]: about["name"] for about in shown}
    accuracies = {(row["method"], row["class"]): row for row in _records(_read(tables[0]))}
    confusions: dict = {}
    for row in _records(_read(tables[1])):
        told = {"name": names.get(row["predicted"], row["predicted"]), "share": row["share"]}
        confusions.setdefault((row["method"], row["class"]), []).append(told)
    counts = _shares(len(shown), ["", *(row["method"] for row in compared(summaries)), *sets.paths])
    limits = {} if len(shown) <= SMALL_STUDY else {"side": SIDE, "limit": BYTES}
    without = next((row["method"] for row in summaries if row["start"] == "none"), None)
    made = []
    for about in shown:
        floor = accuracies.get((without, about["class"]))
        rows = []
        for summary in summaries:
            key = summary["method"], about["class"]
            if key not in accuracies:
                continue
            found = accuracies[key]
            gain = found["accuracy_mean"] - floor["accuracy_mean"] if floor and key[0] != without else None
            rows.append(
                {
                    "title": summary["title"],
                    "family": summary["family"],
                    "accuracy_mean": found["accuracy_mean"],
                    "accuracy_se": found["accuracy_se"],
                    "gain": gain,
                    "confusions": confusions.get(key, []),
                    "pictures": sets.pictures(key[0], about, counts[key[0]], **limits) if counts.get(key[0]) else [],
                }
            )
        tested = next(
            (found["tested"] for row in summaries if (found := accuracies.get((row["method"], about["class"])))), 0
        )
        made.append(
            dict(about)
            | {"rows": rows, "tested": tested, "training": sets.pictures("", about, counts.get("", 0), **limits)}
        )
    return made


def _shares(classes: int, keys: Sequence[str]) -> dict[str, int]:
    """How many pictures of a class each set may show, the first sets first, so that all classes keep to PICTURES."""
    keys = list(dict.fromkeys(keys))
    room = PICTURES // max(1, classes)
    each = min(PER_CLASS, max(1, room // len(keys)))
    return {key: each for key in keys[: room // each]}


def _read(path: Path) -> pd.DataFrame:
    texts = dict.fromkeys(("method", "class", "predicted"), str)
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={"accuracy_se": [""]})


def _records(table: pd.DataFrame) -> list[dict]:
    return table.astype(object).where(table.notna(), None).to_dict("records")
