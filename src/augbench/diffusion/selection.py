"""Selection: which learning rate and which state of a fine-tuning a method goes on with (paper, section 3.1)."""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench.core import files
from augbench.diffusion.candidates import history_file


def rates(folders: Sequence[Path]) -> dict[str, float]:
    """Each fine-tuning's lowest validation loss of all epochs, by the name of its folder; infinite for one that
    diverged, however good it had been before."""
    losses = {folder.name: pd.read_csv(history_file(folder))["validation_loss"] for folder in folders}
    return {name: math.inf if math.isinf(course.max()) else float(course.min()) for name, course in losses.items()}


def best_rate(folders: Sequence[Path]) -> Path:
    """The fine-tuning with the lowest validation loss; the first of equals. Raises ValueError when all diverged."""
    losses = rates(folders)
    best = min(folders, key=lambda folder: losses[folder.name])
    if math.isinf(losses[best.name]):
        raise ValueError(
            f"every learning rate of {best.parent.name} diverges ({', '.join(losses)}); write lower "
            "`finetune.learning_rates`, or smaller factors in `finetune.grid`"
        )
    return best


def compare_rates(folders: Sequence[Path], grid: Sequence[float]) -> dict:
    """What a reader should know of the learning rates, fit for JSON.

    ``grid`` holds the factor of each folder. Returns ``rates``, those of :func:`rates` with None for one that diverged,
    and ``edge``: ``lowest`` or ``highest`` where the best one is at that end of the grid, beyond which a better one may
    lie, else None.
    """
    losses = rates(folders)
    factor = dict(zip([folder.name for folder in folders], grid, strict=True))[best_rate(folders).name]
    ends = {min(grid): "lowest", max(grid): "highest"} if len(set(grid)) > 1 else {}
    finite = {name: None if math.isinf(loss) else loss for name, loss in losses.items()}
    return {"rates": finite, "edge": ends.get(factor)}


def distinct(candidates: pd.DataFrame, prefix: str) -> list[dict]:
    """The candidates of a fine-tuning (``candidates.csv``) without repetition: those of one epoch are one.

    Returns candidate (``prefix``, the folder, and the first name), file, names (all of its names), epoch and losses.
    """
    unique = {}
    for row in candidates.to_dict("records"):
        name = row["candidate"]
        kept = unique.setdefault(
            row["epoch"], row | {"candidate": f"{prefix}_{name}", "file": f"{prefix}/{name}.safetensors", "names": []}
        )
        kept["names"].append(name)
    return list(unique.values())


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


def write(
    path: str | Path,
    chosen: str | Path,
    screened: Sequence[str | Path],
    folders: Sequence[str | Path],
    *,
    grid: Sequence[float],
) -> None:
    """Select among the candidates of the files ``screened``, of fine-tunings in ``folders``.

    Writes the selection (JSON), :func:`select`'s with :func:`compare_rates`', and a copy of the candidate itself to
    ``chosen``: the folders go when it is there.
    """
    places = [Path(folder) for folder in folders]
    selection = select([candidate for file in screened for candidate in files.read_json(file)])
    with files.whole(chosen) as temporary:
        shutil.copyfile(places[0].parent / selection["file"], temporary)
    files.write_json(path, selection | compare_rates(places, grid))
