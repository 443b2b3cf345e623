"""Scores a classifier on images: what it predicts, how sure it is, and the features that it decides by."""

import functools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from augbench.classifier.architectures import SMALL
from augbench.classifier.crops import Batches, evaluation_image
from augbench.classifier.networks import Network
from augbench.study.sections.classifier import Classifier

WEIGHTS = "best.safetensors"


def evaluation_batches(table: pd.DataFrame, settings: Classifier) -> Batches:
    """The images of a table as they are scored."""
    prepare = functools.partial(evaluation_image, image_size=settings.image_size, whole_image=settings.model == SMALL)
    return Batches(table, prepare, lambda image, epoch, position: image, settings.workers)


def predictions(network: Network, table: pd.DataFrame, classes: Sequence[str], settings: Classifier) -> pd.DataFrame:
    """Columns image_id, class, predicted, correct, confidence (softmax probability); the images in their order."""
    label, confidence = network.predict(evaluation_batches(table, settings))
    scored = table[["image_id", "class"]].reset_index(drop=True)
    scored["predicted"] = [classes[i] for i in label.tolist()]
    scored["correct"] = scored["predicted"] == scored["class"]
    scored["confidence"] = confidence.numpy()
    return scored


def score(folder: str | Path, classes: Sequence[str], table: pd.DataFrame, settings: Classifier):
    """Features and predictions of the classifier in ``folder`` (``best.safetensors``) for a table's images, in order.

    ``classes`` and ``settings`` are those that it was trained with. Features, float32 (n, d), are the input of its last
    linear layer, or its output where it has none; predictions have the columns image_id, class, predicted and correct.
    Classes that the classifier does not know are never correct. Raises ValueError naming an unreadable image.
    """
    torch.set_num_threads(settings.threads)
    network = Network(settings.model, len(classes))
    network.module.load_state_dict(load_file(Path(folder) / WEIGHTS))
    features = []
    linear = [module for module in network.module.modules() if isinstance(module, torch.nn.Linear)]
    if linear:
        linear[-1].register_forward_hook(lambda _, inputs, output: features.append(inputs[0].flatten(1).float().cpu()))
    else:
        network.module.register_forward_hook(lambda module, inputs, output: features.append(output.float().cpu()))
    scored = predictions(network, table, classes, settings)
    return torch.cat(features).numpy(), scored[["image_id", "class", "predicted", "correct"]]
