"""Selection: which learning rate and which state of a fine-tuning a method goes on with (paper, section 3.1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd


def rates(folders: Sequence[Path]) -> dict[str, float]:
    """Each fine-tuning's lowest validation loss in any epoch (``history.csv``), by the name of its folder."""
    return {folder.name: float(pd.read_csv(folder / "history.csv")["validation_loss"].min()) for folder in folders}


def best_rate(folders: Sequence[Path]) -> Path:
    """The fine-tuning with the lowest validation loss; the first of equals."""
    losses = rates(folders)
    return min(folders, key=lambda folder: losses[folder.name])


def distinct(candidates: pd.DataFrame, prefix: str) -> list[dict]:
    """The candidates of a fine-tuning (``candidates.csv``) without repetition: those of one epoch are one.

    Returns candidate (``prefix``, the folder, and the first name), file, names (all of its names), epoch and losses.
    """
    found = {}
    for row in candidates.to_dict("records"):
        name = row["candidate"]
        kept = found.setdefault(
            row["epoch"], row | {"candidate": f"{prefix}_{name}", "file": f"{prefix}/{name}.safetensors", "names": []}
        )
        kept["names"].append(name)
    return list(found.values())


def candidates(folders: Sequence[Path]) -> list[dict]:
    """What is compared: the candidates of the fine-tuning with the best learning rate."""
    folder = best_rate(folders)
    return distinct(pd.read_csv(folder / "candidates.csv"), folder.name)


def select(screened: Sequence[Mapping]) -> dict:
    """The candidate with the best validation accuracy; of equals the one with the lower validation loss.

    ``screened`` has candidate, epoch, validation_loss and validation_accuracy. Raises ValueError when empty.
    """
    if not screened:
        raise ValueError("there is no candidate to select from")
    best = max(screened, key=lambda row: (row["validation_accuracy"], -row["validation_loss"], -row["epoch"]))
    return dict(best) | {"screened": sorted(map(dict, screened), key=lambda row: row["epoch"])}
