"""The data set of a study: a class that retrieval cannot fill is excluded for every method (paper, section 3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core.files import write_csv
from augbench.dataset.splits import SPLITS
from augbench.study.classes import wanted


def shortfall(ledgers: Mapping[str, pd.DataFrame], counts: Mapping[str, int]) -> dict[str, str]:
    """Classes that cannot be filled, with a sentence each.

    ``ledgers``: title of each retrieval method of the study -> its ledger (columns class, fate); ``counts``: class ->
    images that each of them needs.
    """
    short: dict[str, str] = {}
    for title, ledger in ledgers.items():
        used = ledger[ledger["fate"] == "used"].groupby("class").size()
        for key, count in counts.items():
            if used.get(key, 0) < count:
                short.setdefault(key, f"{title} found {used.get(key, 0)} of {count} images")
    return {key: short[key] for key in counts if key in short}


def write_dataset(
    classes: pd.DataFrame,
    table: pd.DataFrame,
    excluded: Mapping[str, str],
    classes_csv: str | Path,
    splits: Sequence[str | Path],
    fill_to: str | int | None = None,
) -> None:
    """Write the class table and the image table of each split, without the classes that are excluded.

    Parameters
    ----------
    classes : columns class, lemmas, hypernyms, definition; written with train and excluded besides
    table : all images of the target, with the column split; excluded : class -> why; splits : paths, as ``SPLITS``
    fill_to : see :func:`augbench.study.classes.wanted`; where it is set, the class table has the column wanted

    Raises SystemExit with one sentence when fewer than two classes are left.
    """
    for key, reason in excluded.items():
        print(f"excluded for every method: {key}: {reason}")
    kept = table[~table["class"].isin(excluded)]
    if kept["class"].nunique() < 2:
        raise SystemExit(
            "fewer than two classes are left, because retrieval could not fill the others: use a larger pool"
        )
    training = table[table["split"] == "train"].groupby("class").size()
    counts = classes["class"].map(training).fillna(0).astype(int)
    reasons = classes["class"].map(excluded).fillna("")
    written = classes.assign(train=counts, excluded=reasons)
    if fill_to is not None:
        all_counts = table[table["split"] == "train"].groupby("class").size()
        full = wanted({str(key): int(count) for key, count in all_counts.items()}, fill_to)
        written["wanted"] = classes["class"].map(full).fillna(0).astype(int)
    write_csv(classes_csv, written)
    for split, path in zip(SPLITS, splits, strict=True):
        images.write(path, kept[kept["split"] == split])
