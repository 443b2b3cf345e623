"""The classifiers of one job, trained one after the other: a method's runs, the candidates of a fine-tuning, ..."""

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.classifier import training
from augbench.classifier.scoring import predictions_among
from augbench.core.files import read_json, whole, write_json
from augbench.core.seeds import derive
from augbench.study.recipes import PLAIN, Recipe
from augbench.study.sections.classifier import Classifier


@dataclass(frozen=True)
class Trainer:
    """How a job trains its classifiers.

    ``launch`` calls a function with arguments in the job's processes: :func:`augbench.jobs.launching.run`, of which the
    number of processes is set. ``recipe`` is the method's. ``features`` are pairs of a file of images' features and the
    tables that it is of, for a probe.
    """

    settings: Classifier
    save_minutes: float
    launch: Callable
    recipe: Recipe = PLAIN
    features: Sequence[tuple] = ()

    @functools.cached_property
    def _probes(self):
        from augbench.classifier.probe import Probes

        return Probes(self.settings, self.features)

    def train(
        self,
        sets: Mapping[str, pd.DataFrame],
        classes: Sequence[str],
        folder: str | Path,
        seed: int,
        added: pd.DataFrame | None = None,
    ) -> None:
        """Train on ``sets`` (train, validation, test) and on images that are ``added`` to the first of them into
        ``folder``, see :func:`augbench.classifier.training.train`; its state stays there."""
        job: dict = {"classes": list(classes), "folder": str(folder), "seed": seed, "recipe": self.recipe, **sets}
        if added is not None:
            job |= {"train": pd.concat([sets["train"], added], ignore_index=True), "added": len(added)}
        if self.settings.train.is_probe:
            self._probes.train(**job)
            return
        job |= {"settings": self.settings, "save_minutes": self.save_minutes}
        self.launch(training.train, job, Path(folder) / ".processes", threads=self.settings.threads)

    def train_only(self, sets: Mapping[str, pd.DataFrame], classes: Sequence[str], folder: str | Path, seed: int):
        """As :meth:`train`, of a job's only classifier."""
        self.train(sets, classes, folder, seed)
        training.forget(folder)


def train_runs(
    trainer: Trainer,
    sets: Mapping[str, pd.DataFrame],
    classes: Sequence[str],
    added: Sequence[str | Path],
    folders: Mapping[int, str | Path],
    seed: int,
    complete: Sequence[str] = (),
) -> None:
    """Train a method's runs, each on the training set and its own added images.

    Parameters
    ----------
    sets : train, validation and test; added : an image table for each run, or none at all
    folders : number of a run -> its folder; seed : the study's; complete : classes to which nothing is to be added

    Run k has the same seed for every method, so that those of two methods differ in their images alone. A class that
    retrieval could not fill at this ratio takes no part (paper, Figure 5B).
    """
    for place, (run, folder) in enumerate(folders.items()):
        print(f"run {run}", flush=True)
        further = images.read_columns(*added[place : place + 1])
        taught = classes_of_run(classes, further, complete)
        tables = dict(sets)
        if len(taught) < len(classes):
            tables = {name: table[table["class"].isin(taught)] for name, table in sets.items()}
        trainer.train(tables, taught, folder, derive(seed, "classifier", run), further)
    for folder in folders.values():
        training.forget(folder)


def classes_of_run(classes: Sequence[str], added: pd.DataFrame, complete: Sequence[str] = ()) -> Sequence[str]:
    """The classes that a run is trained on: those of which images were added, or that are ``complete``; all where none
    were added."""
    present = set(added["class"].unique())
    return [key for key in classes if key in present or key in complete] if present else classes


def score_runs(
    settings: Classifier,
    table: pd.DataFrame,
    classes: Sequence[str],
    added: Sequence[str | Path],
    folders: Sequence[str | Path],
    outputs: Sequence[str | Path],
    complete: Sequence[str] = (),
) -> None:
    """Score a method's runs, each in its folder, on a further test set; nothing is trained.

    Writes the columns image_id, class, predicted, correct and confidence of each run to its place in ``outputs``.
    ``classes``, ``added`` and ``complete`` are as in :func:`train_runs`.
    """
    for place, (folder, output) in enumerate(zip(folders, outputs, strict=True)):
        further = images.read_columns(*added[place : place + 1], columns=["class"])
        taught = classes_of_run(classes, further, complete)
        scored = predictions_among(folder, table, taught, settings)
        with whole(output) as temporary:
            scored.to_parquet(temporary, index=False)


def compare_candidates(
    trainer: Trainer,
    sets: Mapping[str, pd.DataFrame],
    classes: Sequence[str],
    candidates: Sequence[Mapping],
    path: str | Path,
    seed: int,
) -> None:
    """Train a classifier for each candidate of a fine-tuning, on the images that were generated with it.

    Writes the rows of ``candidates`` with ``validation_accuracy`` in percent to ``path``, JSON.

    Parameters
    ----------
    sets : train, validation, and the generated images of all candidates; test images take no part in a selection
    candidates : rows with a name, ``candidate``, which is also that of its folder beside ``path``
    """
    folders = [Path(path).parent / row["candidate"] for row in candidates]
    compared = []
    for row, folder in zip(candidates, folders, strict=True):
        print(f"classifier for {row['candidate']}", flush=True)
        added = sets["generated"][sets["generated"]["candidate"] == row["candidate"]]
        tables = {"train": sets["train"], "validation": sets["validation"], "test": sets["validation"]}
        trainer.train(tables, classes, folder, derive(seed, "classifier", 1), added)
        accuracy = read_json(folder / "metrics.json")["best_validation_accuracy"]
        compared.append({**row, "validation_accuracy": accuracy})
    write_json(path, compared)
    for folder in folders:  # of its classifier, the accuracy is all that is kept
        shutil.rmtree(folder)
