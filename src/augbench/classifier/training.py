"""Trains the downstream classifier, whose test accuracy is what the study measures of every augmented set.

The recipe is the paper's (section 3, "Data augmentation and classifier training"): SGD on randomly resized
crops, learning rate lowered and training stopped by validation accuracy, best checkpoint scored. Every
random choice is derived from (seed, epoch, position of the image), so a run can be resumed from the state
of any epoch and its bytes do not depend on how images are read.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from augbench.classifier.crops import Batches, evaluation_image, training_batches
from augbench.core import collectives, finite, resume
from augbench.core.files import whole, write_csv, write_json
from augbench.core.seeds import derive, generator

SMALL = "small_cnn"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in [0, 1]
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
EVALUATION_BATCH = 256  # fixed, because the batch can change low bits of a result
LOWER = "use a lower `classifier: {learning_rate: ...}`"  # what a training that diverges needs
STATE = "state.safetensors"
START = {"batch": 0, "loss": 0.0, "correct": 0}  # of an epoch: batches done, their summed loss and hits


# --- models ---------------------------------------------------------------------------------------------


@functools.cache
def known_models() -> list[str]:
    """``small_cnn`` and torchvision's classification models, without the seconds that importing it takes."""
    from importlib.util import find_spec

    folder = Path(find_spec("torchvision").origin).parent / "models"
    registered = re.compile(r"^@register_model\(\).*?^def (\w+)\(", re.MULTILINE | re.DOTALL)
    names = {name for file in folder.glob("*.py") for name in registered.findall(file.read_text("utf-8"))}
    return [SMALL, *sorted(names)]


def check_model(name: str) -> None:
    """Raise ValueError, naming the nearest known names, unless ``name`` is a known classifier."""
    import difflib

    if name not in known_models():
        near = difflib.get_close_matches(str(name).lower(), known_models(), n=3, cutoff=0.4)
        names = " or ".join(map(repr, near or [SMALL, "resnet50"]))
        raise ValueError(f"unknown classifier {name!r}; did you mean {names}?")


def build(name: str, classes: int):
    """An untrained classifier that maps (batch, 3, size, size) to (batch, ``classes``) logits."""
    check_model(name)
    if name == SMALL:
        return _small_cnn(classes)
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=classes)


def _small_cnn(classes: int):
    """Three convolutional blocks and global pooling, 68,000 parameters, for images of about 32 pixels."""
    from torch import nn

    def block(before: int, after: int):
        convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(after), nn.ReLU()]

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes)]
    return nn.Sequential(*block(3, 24), *block(24, 48), *block(48, 128), *head)


# --- training -------------------------------------------------------------------------------------------


def _labels(table: pd.DataFrame, classes: Sequence[str], what: str):
    """Positions of the images' classes, int64 (n,). Raises ValueError for no image or an unknown class."""
    import torch

    if table.empty:
        raise ValueError(f"no {what} images")
    position = {key: i for i, key in enumerate(classes)}
    for image_id, key in zip(table["image_id"], table["class"], strict=True):
        if key not in position:
            raise ValueError(f"{what} image {image_id!r} has class {key!r}, which is not one of the classes")
    return torch.tensor([position[key] for key in table["class"]])


def plateau(
    accuracies: Sequence[float], learning_rate: float, patience: int, stop_after: int
) -> tuple[float, int, bool]:
    """What a sequence of validation accuracies, one per epoch, asks for next.

    Returns the learning rate of the next epoch (divided by 10 after every ``patience`` epochs without a
    new best), the best epoch so far (from 1, the first of equals; 0 before any) and whether to stop
    (``stop_after`` epochs without a new best).
    """
    best, best_epoch, reductions = -math.inf, 0, 0
    for epoch, accuracy in enumerate(accuracies, 1):
        if accuracy > best:
            best, best_epoch = accuracy, epoch
        elif (epoch - best_epoch) % patience == 0:
            reductions += 1
    return learning_rate / 10**reductions, best_epoch, len(accuracies) - best_epoch >= stop_after


def epoch_order(count: int, batch_size: int, seed: int, epoch: int, least: int = 2) -> list:
    """All positions in random order, cut into batches of at least ``least``; a single image has no variance."""
    order = generator(seed, "classifier", "order", epoch).permutation(count)
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if len(batches) > 1 and len(batches[-1]) < least:
        batches[-2:] = [order[-len(batches[-2]) - len(batches[-1]) :]]
    return batches


class _Network:
    """A classifier on the GPU, in mixed precision (float16, as V100 and T4 need it), or else on the CPU; in several
    processes, which share each batch, or in one."""

    def __init__(self, model: str, classes: int):
        import torch

        group = collectives.group()
        self.device, self.process, self.processes = group.device, group.process_index, group.num_processes
        self.mixed = self.device.type == "cuda"
        self.module = build(model, classes).to(self.device, memory_format=torch.channels_last)
        self.trained = self.module
        if self.processes > 1:
            self.trained = torch.nn.parallel.DistributedDataParallel(self.module)
        self.mean = 255 * torch.tensor(MEAN, device=self.device).view(3, 1, 1)
        self.std = 255 * torch.tensor(STD, device=self.device).view(3, 1, 1)

    def logits(self, pixels):
        import torch

        pixels = (pixels.to(self.device).float() - self.mean) / self.std
        with torch.autocast(self.device.type, torch.float16, enabled=self.mixed):
            output = (self.trained if self.module.training else self.module)(pixels)
        return getattr(output, "logits", output).float()  # some models return auxiliary outputs in training

    def weights(self) -> dict:
        return {key: value.detach().cpu().contiguous().clone() for key, value in self.module.state_dict().items()}

    def share(self, batch):
        """The part of a batch (or list of batches) that this process takes."""
        return batch[self.process :: self.processes]

    def step(self, pixels, target, size: int, optimizer, scaler) -> tuple[float, int]:
        """One step on this process's share of a batch of ``size`` images; returns the batch's summed loss (nats) and
        how many of its images were recognised."""
        import torch
        from torch.nn.functional import cross_entropy

        logits = self.logits(pixels)
        loss = cross_entropy(logits, target, reduction="sum")
        optimizer.zero_grad()
        scaler.scale(loss * self.processes / size).backward()  # gradients are averaged over the processes
        scaler.step(optimizer)
        scaler.update()
        correct = (logits.argmax(1) == target).sum()
        summed, correct = collectives.total(torch.stack([loss.detach().double(), correct.double()])).tolist()
        return summed, int(correct)

    def predict(self, data: Batches):
        """Predicted labels int64 (n,) and their softmax probabilities float32 (n,), the same in every process."""
        import torch

        self.module.eval()
        if self.processes > 1:  # each has seen other images; as in training, the first one's statistics count
            for buffer in self.module.buffers():
                torch.distributed.broadcast(buffer, 0)
        starts = range(0, len(data), EVALUATION_BATCH)
        requests = [(0, range(start, min(start + EVALUATION_BATCH, len(data)))) for start in starts]
        labels = torch.zeros(len(data), dtype=torch.int64, device=self.device)
        shares = torch.zeros(len(data), device=self.device)
        mine = self.share(requests)
        with torch.inference_mode():
            for (_, where), pixels in zip(mine, data.stream(mine), strict=True):
                share, label = self.logits(pixels).softmax(1).max(1)
                labels[where.start : where.stop], shares[where.start : where.stop] = label, share
        labels, shares = collectives.total(labels).cpu(), collectives.total(shares).cpu()
        finite.check(shares, "the classifier", [f"the image {row.image_id}" for row in data.rows], LOWER)
        return labels, shares


def _evaluation(table: pd.DataFrame, model: str, image_size: int, workers: int) -> Batches:
    prepare = functools.partial(evaluation_image, image_size=image_size, whole_image=model == SMALL)
    return Batches(table, prepare, lambda image, epoch, position: image, workers)


def _predictions(network: _Network, table: pd.DataFrame, classes: Sequence[str], data: Batches) -> pd.DataFrame:
    label, confidence = network.predict(data)
    found = table[["image_id", "class"]].reset_index(drop=True)
    found["predicted"] = [classes[i] for i in label.tolist()]
    found["correct"] = found["predicted"] == found["class"]
    found["confidence"] = confidence.numpy()
    return found


def train(
    train: pd.DataFrame,
    validation: pd.DataFrame,
    test: pd.DataFrame,
    classes: Sequence[str],
    folder: str | Path,
    *,
    seed: int,
    model: str,
    image_size: int,
    batch_size: int,
    learning_rate: float,
    max_epochs: int = 270,
    patience: int = 10,
    stop_after: int = 20,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    horizontal_flip: bool = True,
    workers: int = 0,
    threads: int = 1,
    save_minutes: float = 10,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict:
    """Train a classifier on image tables and score its best-validation checkpoint on ``test`` (section 3).

    Writes ``history.csv`` (epoch, learning_rate, train_loss in nats, train_accuracy and
    validation_accuracy in percent), ``best.safetensors``, ``predictions.parquet`` (image_id, class,
    predicted, correct, confidence; the test images in their order) and, last, ``metrics.json``, which is
    also returned. A run that was killed goes on from ``state.safetensors`` and ends with the same bytes; the state
    stays until :func:`forget`, so that of a job of several runs none is trained twice.

    Parameters
    ----------
    classes : class keys; an image's label is the position of its class here
    model : a torchvision classification model, trained from scratch, or ``small_cnn``
    image_size : pixels a side; torchvision models are scored on the central crop (256 : 224)
    learning_rate : initial; divided by 10 after ``patience`` epochs without better validation accuracy
    stop_after : epochs without better validation accuracy after which training ends
    crop_scale : smallest and largest share of the area that a training crop takes
    workers : processes that read images, when these do not fit into memory; the result does not depend on it
    threads : CPU threads of the network; low bits depend on it, so give the same on every machine
    save_minutes : time between states to go on from; one is also saved at SIGTERM, within an epoch as well

    Under ``accelerate launch`` the processes share each batch. Raises SystemExit(143) at SIGTERM, and ValueError for
    an unknown model, an unreadable image (named), an image of no class, an empty set; RuntimeError when its loss or
    what it gives is not finite.
    """
    import torch
    from safetensors.torch import save_file

    classes, crop_scale, folder = list(classes), tuple(crop_scale), Path(folder)
    torch.set_num_threads(threads)
    torch.manual_seed(derive(seed, "classifier", "weights"))
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    network = _Network(model, len(classes))
    labels = _labels(train, classes, "training")
    truth = _labels(validation, classes, "validation")
    _labels(test, classes, "test")
    least = 2 * network.processes  # in a batch: a single image has no variance
    if min(len(train), batch_size) < least:
        given = f"{len(train)} training images in batches of {batch_size}"
        raise ValueError(f"{given} are too few: each of {network.processes} processes needs two at a time")

    data = training_batches(train, image_size, crop_scale, horizontal_flip, (seed, "classifier"), workers).keep()
    held_out = _evaluation(validation, model, image_size, workers).keep()
    scaler = torch.amp.GradScaler(network.device.type, enabled=network.mixed)
    optimizer = torch.optim.SGD(
        network.module.parameters(), lr=learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )

    settings = [seed, model, image_size, batch_size, learning_rate, max_epochs, patience, stop_after]
    settings += [crop_scale, horizontal_flip, threads, classes, network.processes]
    settings += [_references(table) for table in (train, validation)]
    data_files = dict.fromkeys([*train["path"], *validation["path"]])
    state = _State(folder / STATE, resume.identity(__name__, settings, data_files), network, optimizer, scaler)
    history, position, best = state.restore()
    with resume.saver(save_minutes) as saver:
        while True:
            accuracies = [row["validation_accuracy"] for row in history]
            rate, best_epoch, stop = plateau(accuracies, learning_rate, patience, stop_after)
            if history and best_epoch == len(history) and not position["batch"]:
                best = network.weights()
            if stop or len(history) >= max_epochs:
                break
            epoch = len(history) + 1
            optimizer.param_groups[0]["lr"] = rate
            order = epoch_order(len(train), batch_size, seed, epoch, least)[position["batch"] :]
            network.module.train()
            mine = [network.share(batch) for batch in order]
            for batch, part, pixels in zip(order, mine, data.stream([(epoch, part) for part in mine]), strict=True):
                torch.manual_seed(derive(seed, "classifier", "dropout", epoch, position["batch"], network.process))
                target = labels[torch.from_numpy(part)].to(network.device)
                loss, correct = network.step(pixels, target, len(batch), optimizer, scaler)
                position = {
                    "batch": position["batch"] + 1,
                    "loss": position["loss"] + loss,
                    "correct": position["correct"] + correct,
                }
                if collectives.any_process(saver.due()):  # they leave together
                    state.save(history, position, best)
                    collectives.group().wait_for_everyone()
                    saver.done()
            if not math.isfinite(position["loss"]):
                raise RuntimeError(f"the classifier's loss is not finite in epoch {epoch}; {LOWER}")
            accuracy = 100 * (network.predict(held_out)[0] == truth).sum().item() / len(truth)
            row = {"epoch": epoch, "learning_rate": rate, "train_loss": position["loss"] / len(train)}
            row |= {"train_accuracy": 100 * position["correct"] / len(train), "validation_accuracy": accuracy}
            history.append(row)
            position = dict(START)
            progress(epoch, max_epochs, f"validation accuracy {accuracy:.1f}%")

    state.save(history, position, best)
    network.module.load_state_dict(best)
    scored = _predictions(network, test, classes, _evaluation(test, model, image_size, workers))
    metrics = {
        "accuracy": 100 * int(scored["correct"].sum()) / len(scored),
        "best_epoch": best_epoch,
        "best_validation_accuracy": accuracies[best_epoch - 1],
        "epochs": len(history),
        "at_cap": not stop,
        "n_classes": len(classes),
        "n_train": len(train),
        "n_validation": len(validation),
        "n_test": len(test),
        "seed": seed,
        "model": model,
    }
    if network.process:
        return metrics
    with whole(folder / "best.safetensors") as temporary:
        save_file(best, temporary)
    with whole(folder / "predictions.parquet") as temporary:
        scored.to_parquet(temporary, index=False)
    write_csv(folder / "history.csv", pd.DataFrame(history))
    write_json(folder / "metrics.json", metrics)
    return metrics


def forget(folder: str | Path) -> None:
    """Remove the state that a finished run leaves: with it, the same call again trains nothing and scores."""
    (Path(folder) / STATE).unlink(missing_ok=True)


class _State:
    """All that a killed run needs to go on, in one file: weights, best weights, momentum, history, position."""

    def __init__(self, path: Path, identity: str, network: _Network, optimizer, scaler):
        self.path, self.identity = path, identity
        self.network, self.optimizer, self.scaler = network, optimizer, scaler

    def save(self, history: list[dict], position: dict, best: dict) -> None:
        if self.network.process:
            return
        momentum = resume.optimizer_tensors(self.optimizer)
        groups = {"weights": self.network.module.state_dict(), "best": best, "momentum": momentum}
        note = {"history": history, "position": position, "scaler": self.scaler.state_dict()}
        resume.save(self.path, self.identity, note, groups)

    def restore(self) -> tuple[list[dict], dict, dict]:
        """History, position in the epoch and best weights of a run of the same identity; empty if none."""
        kept = resume.load(self.path, self.identity, ["weights", "best", "momentum"])
        if not kept:
            return [], dict(START), {}
        note, groups = kept
        self.network.module.load_state_dict(groups["weights"])
        resume.restore_optimizer(self.optimizer, groups["momentum"])
        self.scaler.load_state_dict(note["scaler"])
        return note["history"], note["position"], groups["best"]


def _references(table: pd.DataFrame) -> list:
    return table[["image_id", "class", "path", "offset", "length"]].astype(str).to_numpy().tolist()


def look(
    folder: str | Path,
    classes: Sequence[str],
    table: pd.DataFrame,
    *,
    model: str,
    image_size: int,
    threads: int = 1,
):
    """What the classifier in ``folder`` (``best.safetensors``) sees in the images of a table, in their order.

    ``classes``, ``model`` and ``image_size`` are those it was trained with. Returns features, float32 (n, d), the
    input of its last linear layer (its output where it has none), and a table with image_id, class, predicted,
    correct; classes that the classifier does not know are never correct. Raises ValueError naming an unreadable
    image.
    """
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    network = _Network(model, len(classes))
    network.module.load_state_dict(load_file(Path(folder) / "best.safetensors"))
    found = []
    linear = [module for module in network.module.modules() if isinstance(module, torch.nn.Linear)]
    if linear:
        linear[-1].register_forward_hook(lambda module, given, output: found.append(given[0].flatten(1).float().cpu()))
    else:
        network.module.register_forward_hook(lambda module, inputs, output: found.append(output.float().cpu()))
    seen = _predictions(network, table, classes, _evaluation(table, model, image_size, 0))
    return torch.cat(found).numpy(), seen[["image_id", "class", "predicted", "correct"]]
