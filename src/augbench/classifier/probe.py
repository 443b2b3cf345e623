"""A linear probe: the last layer of a pretrained network as a logistic regression on the features of whole images.

Features are computed once for each image (:mod:`augbench.classifier.features`), so that a classifier takes seconds. It
writes the same files as :mod:`augbench.classifier.training`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from augbench.classifier.features import Features
from augbench.classifier.mixing import Mixing
from augbench.classifier.networks import Network
from augbench.classifier.scoring import scored_table
from augbench.classifier.training import labels_of, write_results
from augbench.core import determinism
from augbench.study.adaptations import PROBE_UNIT
from augbench.study.recipes import PLAIN, Recipe
from augbench.study.sections.classifier import Classifier

# Inverse strengths of regularisation C, as scikit-learn counts them, for features of variance 1: log10(C).
STRENGTHS = [-5.0, -4.5, -4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0]
ITERATIONS = 1000  # of L-BFGS for one of them, at most
TOLERANCE = 1e-6  # of the largest partial derivative of the mean loss


class Probes:
    """The probes of one job, which share a network and the features of images.

    ``files`` are pairs of a file of features and the image tables that it is of; what they lack is computed.
    """

    def __init__(self, settings: Classifier, files: Iterable[tuple] = ()):
        torch.set_num_threads(settings.threads)
        torch.manual_seed(0)  # of the layer that is replaced
        determinism.require(strict=False)  # features have no gradients
        self.settings, self.network = settings, Network(settings, 1)
        self.features = Features(self.network, settings.workers, files)

    def train(
        self,
        train: pd.DataFrame,
        validation: pd.DataFrame,
        test: pd.DataFrame,
        classes: Sequence[str],
        folder: str | Path,
        *,
        seed: int,
        added: int = 0,
        recipe: Recipe = PLAIN,
    ) -> dict:
        """Fit a probe on image tables and score it on ``test``: parameters and files are those of ``training.train``.

        Of all ``STRENGTHS`` the one with the highest validation accuracy is kept, of equals that with the lowest
        validation loss. A row of ``history.csv`` is one strength; ``best.safetensors`` holds the last layer alone. No
        choice is random: runs on the same images are equal.
        """
        classes, folder, pretrained = list(classes), Path(folder), self.network.pretrained
        assert pretrained  # a probe without is refused
        tables = {"training": train, "validation": validation, "test": test}
        labels = {key: labels_of(table, classes, key) for key, table in tables.items()}
        vectors = {key: torch.from_numpy(self.features.of(table)) for key, table in tables.items()}
        device, name = self.network.device, self.network.head_name
        weights = Mixing(recipe.mix, labels["training"].numpy(), added, seed).weights_of(np.arange(len(train)))
        weights = None if weights is None else torch.from_numpy(weights).to(device)
        sets = {key: (vectors[key].to(device).double(), labels[key].to(device)) for key in tables}
        fits = fit_all(*sets["training"], len(classes), weights)
        history = [_judged(fit, sets["training"], sets["validation"]) for fit in fits]
        best = max(range(len(fits)), key=lambda k: (history[k]["validation_accuracy"], -history[k]["validation_loss"]))
        weight, bias = (tensor.float().cpu().contiguous() for tensor in (fits[best].weight, fits[best].bias))
        scores = vectors["test"] @ weight.T + bias
        shares, predicted = scores.softmax(1).max(1)
        scored = scored_table(test, classes, predicted, shares)
        metrics = {
            "accuracy": 100 * int(scored["correct"].sum()) / len(scored),
            f"best_{PROBE_UNIT}": history[best][PROBE_UNIT],
            "best_validation_accuracy": history[best]["validation_accuracy"],
            "epochs": 1,
            "steps": fits[best].iterations,
            "images_seen": len(train),
            "at_cap": False,
            "n_classes": len(classes),
            "n_train": len(train),
            "n_validation": len(validation),
            "n_test": len(test),
            "seed": seed,
            "model": self.settings.model,
            "weights": pretrained._asdict(),
        }
        write_results(folder, {f"{name}.weight": weight, f"{name}.bias": bias}, history, scored, metrics)
        return metrics


class Fit(NamedTuple):
    """A logistic regression of one strength, log10(C): weights float64 (classes, d), biases (classes,), and the
    iterations of L-BFGS that it took."""

    strength: float
    weight: torch.Tensor
    bias: torch.Tensor
    iterations: int

    def logits(self, features):
        return features @ self.weight.T + self.bias


def fit_all(features, labels, classes: int, weights=None, strengths: Sequence[float] = STRENGTHS) -> list[Fit]:
    """Logistic regressions of features float64 (n, d) with ``labels`` int64 (n,), one for each strength.

    Each minimises the mean of the cross-entropies, weighted by ``weights`` (n,) where there are such, plus |W|^2 / (2 C
    n), where W are the weights of features that were scaled to variance 1; that of biases is free. Each begins where
    the one before it ended.
    """
    mean, deviation = features.mean(0), features.std(0, correction=0)
    deviation = torch.where(deviation > 1e-6 * deviation.max().clamp(min=1e-12), deviation, 1.0)
    scaled = (features - mean) / deviation
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64, device=features.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, device=features.device, requires_grad=True)
    fits = []
    for strength in strengths:
        iterations = _minimise(weight, bias, scaled, labels, weights, 10**strength)
        own = weight.detach() / deviation
        fits.append(Fit(strength, own, bias.detach() - own @ mean, iterations))
    return fits


def _minimise(weight, bias, scaled, labels, weights, strength: float) -> int:
    """Move weights and biases to the minimum; returns the number of iterations."""
    penalty = 1 / (2 * strength * len(labels))
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        max_eval=2 * ITERATIONS,
        tolerance_grad=TOLERANCE,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def objective():
        optimizer.zero_grad()
        losses = cross_entropy(scaled @ weight.T + bias, labels, reduction="none")
        loss = (losses if weights is None else losses * weights).mean() + penalty * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    return optimizer.state_dict()["state"][0]["n_iter"]


def _judged(fit: Fit, training: tuple, validation: tuple) -> dict:
    """A row of the history: losses in nats, accuracies in percent."""
    row = {PROBE_UNIT: fit.strength}
    for name, (features, labels) in (("train", training), ("validation", validation)):
        logits = fit.logits(features)
        hits = (logits.argmax(1) == labels).double().mean().item()
        row |= {f"{name}_loss": cross_entropy(logits, labels).item(), f"{name}_accuracy": 100 * hits}
    return row
