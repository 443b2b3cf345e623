"""Scores a classifier on images: what it predicts, how sure it is, and the features that it decides by."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from augbench import images
from augbench.classifier.crops import Batches, evaluation_image, transformed
from augbench.classifier.networks import Network, check_probabilities
from augbench.study.architectures import View
from augbench.study.sections.classifier import Classifier

WEIGHTS = "best.safetensors"


def evaluation_batches(table: pd.DataFrame, view: View, workers: int | None) -> Batches:
    """The images of a table as a network sees them that scores them."""
    if view.scored:
        prepare = functools.partial(transformed, transform=view.scored)
    else:
        prepare = functools.partial(evaluation_image, image_size=view.size, whole_image=view.whole)
    return Batches(table, prepare, lambda image, epoch, draw: image, workers)


def predictions(network: Network, table: pd.DataFrame, classes: Sequence[str], settings: Classifier) -> pd.DataFrame:
    """Columns image_id, class, predicted, correct, confidence (softmax probability); the images in their order."""
    return scored_table(table, classes, *network.predict(evaluation_batches(table, network.view, settings.workers)))


def scored_table(table: pd.DataFrame, classes: Sequence[str], label, confidence) -> pd.DataFrame:
    """:func:`predictions` of the positions of predicted classes, int64 (n,), and of their probabilities (n,)."""
    scored = table[["image_id", "class"]].astype(object).reset_index(drop=True)
    scored["predicted"] = [classes[i] for i in label.tolist()]
    scored["correct"] = scored["predicted"] == scored["class"]
    scored["confidence"] = confidence.numpy()
    return scored


def predictions_among(
    folder: str | Path, table: pd.DataFrame, classes: Sequence[str], settings: Classifier
) -> pd.DataFrame:
    """:func:`predictions` of the classifier in ``folder`` on a further test set, which may lack classes: these are no
    answers, so that their logits count as minus infinity.

    ``classes`` and ``settings`` are those that it was trained with. An image of a class that the classifier does not
    know is never recognised. Raises ValueError where it knows none, and as :func:`examiner`.
    """
    absent = torch.tensor([key not in set(table["class"]) for key in classes])
    if absent.all():
        raise ValueError(f"none of the {len(table)} images has a class that the classifier of {folder} knows")
    network = _trained(folder, classes, settings)
    absent = absent.to(network.device)
    network.module.register_forward_hook(lambda module, inputs, output: output.masked_fill(absent, -torch.inf))
    return predictions(network, table, classes, settings)


def examiner(folder: str | Path, classes: Sequence[str], settings: Classifier) -> Callable[[pd.DataFrame], Iterator]:
    """How the classifier in ``folder`` (``best.safetensors``) sees images: a function from an image table to batches,
    in its order, of features (b, d) and of whether each image is recognised (bool (b,)).

    ``classes`` and ``settings`` are those that it was trained with. Features, a float32 tensor on the classifier's
    device, are the input of its last linear layer, or its output where it has none. An image of a class that the
    classifier does not know is never recognised. Raises ValueError naming an unreadable image, and RuntimeError naming
    one of which the classifier makes no numbers.
    """
    network = _trained(folder, classes, settings)
    features = []
    linear = [module for module in network.module.modules() if isinstance(module, torch.nn.Linear)]
    if linear:
        linear[-1].register_forward_hook(lambda _, inputs, output: features.append(inputs[0].flatten(1).float()))
    else:
        network.module.register_forward_hook(lambda module, inputs, output: features.append(output.float()))

    def examine(table: pd.DataFrame) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        truth = images.places_of(table["class"], classes)
        data = evaluation_batches(table, network.view, settings.workers)
        for labels, shares, where in network.predictions(data):
            check_probabilities(shares, data, where)
            seen = torch.cat(features)  # one, or one for each part of a batch that a GPU takes in parts
            features.clear()
            yield seen, labels.cpu().numpy() == truth[where.start : where.stop]

    return examine


def confidences(
    folder: str | Path, classes: Sequence[str], settings: Classifier
) -> Callable[[pd.DataFrame], np.ndarray]:
    """How sure the classifier in ``folder`` is of images' own classes: a function from an image table to softmax
    probabilities, float32 (n,), in its order; all images are of ``classes``. Raises as :func:`examiner`."""
    network = _trained(folder, classes, settings)
    outputs = []
    network.module.register_forward_hook(lambda module, inputs, output: outputs.append(output.float().softmax(1)))

    def confidence(table: pd.DataFrame) -> np.ndarray:
        truth = images.places_of(table["class"], classes)
        data = evaluation_batches(table, network.view, settings.workers)
        values = np.zeros(len(table), np.float32)
        for _, shares, where in network.predictions(data):
            check_probabilities(shares, data, where)
            own = truth[where.start : where.stop]
            values[where.start : where.stop] = torch.cat(outputs).cpu().numpy()[np.arange(len(own)), own]
            outputs.clear()
        return values

    return confidence


def _trained(folder: str | Path, classes: Sequence[str], settings: Classifier) -> Network:
    torch.set_num_threads(settings.threads)
    network = Network(settings, len(classes), has_results=True)
    network.load(load_file(Path(folder) / WEIGHTS))
    return network
