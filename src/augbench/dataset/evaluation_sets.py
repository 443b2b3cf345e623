"""Further test sets: which images they hold, under the target's classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core.files import BadInput
from augbench.dataset.verification import Verifier
from augbench.images import places
from augbench.study.sections.evaluation import EvaluationSet


def assign(section: EvaluationSet, labels: Sequence[str], rows: Sequence[Mapping]) -> dict[str, str]:
    """Label of a test set -> class of the target, of which ``rows`` have the columns class and lemmas. Raises BadInput
    naming a label that means no class, or several."""
    known = section.classes.labels(rows)
    return {label: section.classes.class_of(label, known, section.path) for label in labels}


def read(
    section: EvaluationSet, classes: pd.DataFrame, unreadable: str, verifier: Verifier | None = None
) -> pd.DataFrame:
    """The images of a test set as an image table, class by class in the target's order; without those of classes that
    take no part in the study.

    ``classes`` : the study's class table, with the columns class, lemmas and excluded. Raises BadInput where nothing is
    left, and as :func:`assign` and the verifier do.
    """
    layout, verifier = section.layout(), verifier or Verifier()
    images_of, messages, rows = section.images_of(layout), [], []
    meant = assign(section, list(layout.classes), classes.to_dict("records"))
    order = {key: place for place, key in enumerate(classes["class"])}
    excluded = set(classes.loc[classes["excluded"] != "", "class"])
    if layout.packed:
        verifier.look_through(row for label, key in meant.items() if key not in excluded for row in images_of(label))
    for label, key in sorted(meant.items(), key=lambda item: order[item[1]]):
        paths = sorted(images_of(label))
        if key in excluded:
            print(f"left out: {len(paths)} images of {key}, which takes no part in the study", flush=True)
            continue
        for path in verifier.readable(paths, unreadable, messages):
            rows.append(places.reference(path, layout.root) | {"class": key})
    for message in messages:
        print(f"left out: {message}", flush=True)
    if not rows:
        raise BadInput(f"{section.path} holds no image of a class that takes part in the study")
    return images.table(rows)


def write(path: str | Path, section: EvaluationSet, classes: pd.DataFrame, unreadable: str, threads: int = 1) -> None:
    """Write :func:`read` as an image table."""
    images.write(path, read(section, classes, unreadable, Verifier(threads)))
