"""Trains the downstream classifier, whose test accuracy is what the study measures of every augmented set.

The recipe is the paper's (section 3, "Data augmentation and classifier training"): SGD on randomly resized
crops, learning rate lowered and training stopped by validation accuracy, best checkpoint scored. Beyond the
paper, a pretrained network is fine-tuned or its last layer trained, with another optimiser, schedule or average of
weights, a budget of steps ends the training, and a method's recipe augments or mixes its images. Every
random choice is derived from (seed, epoch, position of the image), so a run can be resumed from the state
of any epoch and its bytes do not depend on how images are read.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch.nn.functional import one_hot

from augbench import images
from augbench.classifier import augmenting
from augbench.classifier.averaging import Average
from augbench.classifier.crops import training_batches
from augbench.classifier.mixing import Mixing
from augbench.classifier.networks import LOWER, Network
from augbench.classifier.schedule import Epochs
from augbench.classifier.scoring import WEIGHTS, evaluation_batches, predictions
from augbench.core import collectives, determinism, resume
from augbench.core.files import whole, write_csv, write_json
from augbench.core.seeds import derive
from augbench.study.recipes import PLAIN, Recipe
from augbench.study.sections.classifier import Classifier

STATE = "state.safetensors"
WITHOUT_RESULTS = {"workers", "processes"}  # settings that change no result; the processes there really are do


def train(
    train: pd.DataFrame,
    validation: pd.DataFrame,
    test: pd.DataFrame,
    classes: Sequence[str],
    folder: str | Path,
    settings: Classifier,
    *,
    seed: int,
    added: int = 0,
    recipe: Recipe = PLAIN,
    save_minutes: float = 10,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict:
    """Train a classifier on image tables and score its best-validation checkpoint on ``test`` (section 3).

    Writes ``history.csv`` (epoch, or step, of a validation; learning_rate, train_loss in nats, train_accuracy and
    validation_accuracy in percent since the last one), ``best.safetensors``, ``predictions.parquet`` (image_id, class,
    predicted, correct, confidence; the test images in their order) and, last, ``metrics.json``, which is
    also returned. A run that was killed resumes from ``state.safetensors`` and ends with the same bytes; the state
    stays until :func:`forget`, so that of a job of several runs none is trained twice.

    Parameters
    ----------
    classes : class keys; an image's label is the position of its class here
    settings : torchvision models are trained from scratch and scored on the central crop (256 : 224), those of timm
        as it says itself. Low bits depend on the number of threads, so give the same on every machine
    added : how many of the last images of ``train`` are added ones; recipe : how images are augmented and mixed
    save_minutes : time between states to resume from; one is also saved at SIGTERM, within an epoch as well

    Under ``accelerate launch`` the processes share each batch. Raises SystemExit(143) at SIGTERM, ValueError for an
    unknown model, an unreadable image, one of no class or an empty set, RuntimeError for a loss that is not finite.
    """
    classes, folder = list(classes), Path(folder)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(derive(seed, "classifier", "weights"))
    network = Network(settings, len(classes))
    determinism.require(strict=network.has_attention)
    sets = {"training": train, "validation": validation, "test": test}
    labels = {name: labels_of(table, classes, name) for name, table in sets.items()}
    training = _Training(network, sets, labels, settings, seed, added, recipe)
    training.resume_from(folder / STATE, classes)
    with resume.saver(save_minutes) as saver:
        at_cap = training.run(saver, progress)
    training.save()
    network.load(training.best)
    scored = predictions(network, test, classes, settings)
    metrics = training.metrics() | {
        "at_cap": at_cap,
        "n_classes": len(classes),
        "n_train": len(train),
        "n_validation": len(validation),
        "n_test": len(test),
        "seed": seed,
        "model": settings.model,
    }
    if network.pretrained:
        metrics["weights"] = network.pretrained._asdict()
    metrics = {"accuracy": 100 * int(scored["correct"].sum()) / len(scored)} | metrics
    if not network.process:
        write_results(folder, training.best, training.history, scored, metrics)
    return metrics


def _check_batches(images: int, batch_size: int, processes: int) -> None:
    if min(images, batch_size) < 2 * processes:  # a single image has no variance
        raise ValueError(
            f"{images} training images in batches of {batch_size} are too few: each of {processes} processes needs two "
            "at a time"
        )


def forget(folder: str | Path) -> None:
    """Remove the state that a finished run leaves: with it, the same call again trains nothing and scores."""
    (Path(folder) / STATE).unlink(missing_ok=True)


def write_results(
    folder: Path, weights: dict, history: Sequence[Mapping], scored: pd.DataFrame, metrics: Mapping
) -> None:
    """Write the files of a classifier, the metrics last."""
    with whole(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    with whole(folder / "predictions.parquet") as temporary:
        scored.to_parquet(temporary, index=False)
    write_csv(folder / "history.csv", pd.DataFrame(history))
    write_json(folder / "metrics.json", metrics)


def labels_of(table: pd.DataFrame, classes: Sequence[str], name: str):
    """Positions of the images' classes, int64 (n,). Raises ValueError for no image or an unknown class."""
    if table.empty:
        raise ValueError(f"no {name} images")
    places = images.places_of(table["class"], classes)
    if (places < 0).any():
        image, key = table[["image_id", "class"]].iloc[int(places.argmin())]
        raise ValueError(f"{name} image {image!r} has class {key!r}, which is not one of the classes")
    return torch.from_numpy(places.astype("int64"))


class _Training:
    """A training from one round to the next: an epoch, or as many steps as lie between two validations.

    ``history`` has a row for each round that is complete; of the current one ``batch`` counts the batches that are
    done, and ``sums`` are their summed loss and hits, on the device. ``best`` holds the weights of the best round.
    """

    def __init__(
        self,
        network: Network,
        sets: Mapping,
        labels: Mapping,
        settings: Classifier,
        seed: int,
        added: int = 0,
        recipe: Recipe = PLAIN,
    ):
        self.network, self.sets, self.labels, self.settings, self.seed = network, sets, labels, settings, seed
        self.recipe, self.budget = recipe, settings.budget
        self.mixing = Mixing(recipe.mix, labels["training"].numpy(), added, seed)
        whole = self.budget.has_whole_batches
        self.epochs = Epochs(self.mixing.size, settings.batch_size, seed, 2 * network.processes, whole)
        _check_batches(self.epochs.count, settings.batch_size, network.processes)
        self.images = training_batches(
            sets["training"],
            network.view.size,
            settings.crop_scale,
            settings.horizontal_flip,
            (seed, "classifier"),
            settings.workers,
            augmenting.of_images(recipe.augment, (seed, "classifier")),
            network.view.interpolation,
        ).keep()
        self.mix = augmenting.of_batches(recipe.augment, network.classes, (seed, "classifier"))
        self.held_out = evaluation_batches(sets["validation"], network.view, settings.workers).keep()
        self.scaler = torch.amp.GradScaler(network.device.type, enabled=network.mixed)
        self.optimizer = settings.optimizer.of(network.module, settings)
        self.average = Average(network, settings.ema) if settings.ema else None
        self.history: list[dict] = []
        self.batch, self.sums, self.best = 0, self._no_sums(), {}
        self.path, self.identity = None, ""

    def run(self, saver: resume.Saver, progress: Callable) -> bool:
        """Train until the budget is used up; returns whether that was before the training was complete."""
        most = self.budget.rounds(self.settings)
        while True:
            if self.history and self._best_round() == len(self.history) - 1 and not self.batch:
                with self._scored():
                    self.best = self.network.weights()
            is_over = self.settings.rate_schedule.is_over(self._accuracies(), most, self.settings)
            if is_over or len(self.history) >= most:
                return not is_over
            accuracy = self._round(saver)
            progress(len(self.history), most, f"validation accuracy {accuracy:.1f}%")

    def metrics(self) -> dict:
        best, unit, steps = self.history[self._best_round()], self.budget.unit, self._end(len(self.history))
        seen = self.epochs.images_until(steps)
        epochs, rest = divmod(steps, self.epochs.steps)
        return {
            f"best_{unit}": best[unit],
            "best_validation_accuracy": best["validation_accuracy"],
            "epochs": epochs + rest / self.epochs.steps if rest else epochs,
            "steps": steps,
            "images_seen": seen,
        }

    def _accuracies(self) -> list[float]:
        return [row["validation_accuracy"] for row in self.history]

    def _best_round(self) -> int:
        """The first of those with the highest validation accuracy, from 0."""
        accuracies = self._accuracies()
        return accuracies.index(max(accuracies))

    def _end(self, number: int) -> int:
        """Steps when a round is over; 0 for round 0."""
        return self.budget.end(number, self.epochs.steps, self.settings)

    def _round(self, saver: resume.Saver) -> float:
        """Train on the rest of the current round; returns validation accuracy, percent."""
        network, number = self.network, len(self.history) + 1
        begin, end = self._end(number - 1), self._end(number)
        network.begin_training()
        requests = list(self._requests(begin + self.batch, end))
        pixels_of = self.images.stream([request for _, _, request in requests])
        for (place, size, request), pixels in zip(requests, pixels_of, strict=True):
            self._step(begin + self.batch, place, size, request, pixels)
            if collectives.any_process(saver.due()):  # they leave together
                self.save()
                collectives.group().wait_for_everyone()
                saver.done()
        loss, correct = self.sums.tolist()
        unit, progress = self.budget.unit, self.budget.progress(number, end)
        if not math.isfinite(loss):
            raise RuntimeError(f"the classifier's loss is not finite in {unit} {progress}; {LOWER}")
        truth = self.labels["validation"]
        with self._scored():
            accuracy = 100 * (network.predict(self.held_out)[0] == truth).sum().item() / len(truth)
        count = self.epochs.images_until(end) - self.epochs.images_until(begin)
        row = {unit: progress, "learning_rate": self._learning_rate(begin), "train_loss": loss / count}
        row |= {"train_accuracy": 100 * int(correct) / count, "validation_accuracy": accuracy}
        self.history.append(row)
        self.batch, self.sums = 0, self._no_sums()
        return accuracy

    def _requests(self, begin: int, end: int) -> Iterator[tuple[int, int, tuple]]:
        """Of each batch of some steps: its place in the epoch, its size, and what this process reads of it."""
        images, known = np.zeros(0, np.int64), 0
        for epoch, place, batch in self.epochs.batches(begin, end):
            if epoch != known:
                images, known = self.mixing.positions(epoch), epoch
            mine = self.network.share(batch)
            yield place, len(batch), (epoch, images[mine], mine)

    def _learning_rate(self, step: int) -> float:
        steps = self.budget.most_steps(self.epochs.steps, self.settings)
        return self.settings.rate_schedule.rate(self._accuracies(), step, steps, self.settings)

    def _scored(self) -> contextlib.AbstractContextManager:
        """Within it the network has the weights that are scored and kept."""
        return self.average.applied() if self.average else contextlib.nullcontext()

    def _step(self, step: int, place: int, size: int, request: tuple, pixels) -> None:
        network, (epoch, positions, _) = self.network, request
        rate = self._learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1)
        torch.manual_seed(derive(self.seed, "classifier", "dropout", epoch, place, network.process))
        target = self._target(positions).to(network.device, non_blocking=True)
        mix = self.mix and functools.partial(self.mix, epoch=epoch, place=place, process=network.process)
        self.sums = self.sums + network.step(pixels, target, size, self.optimizer, self.scaler, mix)
        if self.average:
            self.average.update(step)
        self.batch += 1

    def _target(self, positions):
        """Labels, or the weights of the labels where images weigh more or less."""
        labels, weights = self.labels["training"][torch.from_numpy(positions)], self.mixing.weights_of(positions)
        if weights is None:
            return labels
        return one_hot(labels, self.network.classes) * torch.from_numpy(weights)[:, None]

    def _no_sums(self):
        return torch.zeros(2, dtype=torch.float64, device=self.network.device)

    # All that a killed run needs to go on, in one file: weights, best weights, momentum, history, position.

    def resume_from(self, path: Path, classes: Sequence[str]) -> None:
        """Go on from the state in ``path`` where it is one of the same run; states are saved there."""
        tables = [self.sets[name] for name in ("training", "validation")]
        facts = [self.settings.model_dump(mode="json", exclude=WITHOUT_RESULTS), self.seed, classes]
        facts += [len(self.sets["training"]) - self.mixing.real, self.recipe.model_dump(mode="json")]
        facts += [self.network.processes, self.network.pretrained, *map(images.digest, tables)]
        files = pd.concat([table["path"] for table in tables]).unique()
        self.path, self.identity = path, resume.identity(__name__, facts, files)
        state = resume.load(path, self.identity, ["weights", "best", "momentum", "average"])
        if state:
            note, groups = state
            self.network.load(groups["weights"])
            if self.average:
                self.average.restore(groups["average"])
            resume.restore_optimizer(self.optimizer, groups["momentum"])
            self.scaler.load_state_dict(note["scaler"])
            self.history, self.best, self.batch = note["history"], groups["best"], note["batch"]
            self.sums = torch.tensor(note["sums"], dtype=torch.float64, device=self.network.device)

    def save(self) -> None:
        if self.network.process:
            return
        momentum = resume.optimizer_tensors(self.optimizer)
        groups = {"weights": self.network.state(), "best": self.best, "momentum": momentum}
        if self.average:
            groups["average"] = self.average.values
        note = {"history": self.history, "batch": self.batch, "sums": self.sums.tolist()}
        note["scaler"] = self.scaler.state_dict()
        resume.save(self.path, self.identity, note, groups)
