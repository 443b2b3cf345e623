"""CLIP's zero-shot classification: an image is of the class whose prompts are nearest to it, and nothing is trained.

Its predictions have the form of a classifier's (:mod:`augbench.classifier.training`), its metrics those keys of a
classifier's that hold without training.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from augbench.classifier.scoring import scored_table
from augbench.core.files import whole, write_json
from augbench.models import class_prompts, clip
from augbench.study import prompts
from augbench.study.scores import PROMPT


def write(
    metrics: str | Path,
    predictions: str | Path,
    test: pd.DataFrame,
    rows: Sequence[Mapping],
    model: clip.Clip,
    progress: Callable,
) -> None:
    """Write what ``model`` takes the images of the table ``test`` for, of the classes that are ``rows`` of the class
    table; the metrics last."""
    pictures = torch.from_numpy(clip.embed(test, model.pictures, progress))
    labels, shares = classify(pictures, torch.from_numpy(class_prompts.embed(rows, model)), model.logit_scale)
    scored = scored_table(test, [row["class"] for row in rows], labels, shares)
    with whole(predictions) as temporary:
        scored.to_parquet(temporary, index=False)
    numbers = {
        "accuracy": 100 * int(scored["correct"].sum()) / len(scored),
        "n_classes": len(rows),
        "n_test": len(scored),
        "model": model.name,
        "sha256": model.sha256,
        "prompts": prompts.templates(PROMPT),
    }
    write_json(metrics, numbers)


def classify(pictures: torch.Tensor, classes: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each picture the position of the nearest class, int64 (n,), and its probability, float32 (n,): softmax of the
    cosines times ``scale``. Embeddings of pictures (n, width) and classes (k, width) have length 1."""
    cosines = pictures @ classes.T
    return cosines.argmax(1), (scale * cosines).softmax(1).amax(1)
