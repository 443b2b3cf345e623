"""The fine-tuner: adapts conditionings, pseudo-words or the denoiser to the target (paper, section 3.1).

What a method trains is data (``trained``); the objective is Stable Diffusion's own.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from augbench.core import collectives, resume
from augbench.core.files import write_csv
from augbench.core.seeds import generator
from augbench.diffusion import candidates
from augbench.diffusion.memory_limit import explained
from augbench.diffusion.trainer import START, FinetuneInputs, Trainer
from augbench.study import prompts
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Finetune

STATE = "state.safetensors"
PATIENCE = 20  # steps in a row whose loss is not finite: then the learning rate diverges


def finetune(
    inputs: FinetuneInputs,
    method: Method,
    settings: Finetune,
    folder: str | Path,
    *,
    rate: float,
    seed: int,
    save_minutes: float,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Train the method's parts on all classes at once, or for each class by itself, and write its candidates (section
    3.1).

    ``folder`` receives ``{best_train,best_validation,epoch-N}.safetensors`` as far as the method names them,
    and ``candidates.csv`` (candidate, epoch, train_loss, validation_loss); the file beside it that has its name and
    ends in ``.csv`` holds epoch and both losses.
    Training ends when the validation loss, taken with the same noise in each epoch, has not fallen for
    ``settings.patience`` epochs, or after ``settings.max_epochs``; a method without best candidates is trained as far
    as its last epoch is named. A step whose loss is not finite, as when float16 overflows, is left out. After
    ``PATIENCE`` of them in a row, or a validation loss that is not finite, both losses of the epoch are infinite and
    there is no candidate, so that other learning rates are preferred. A killed run goes on from the last state and ends
    with the same bytes; on another kind of GPU it begins anew.

    ``rate`` is a factor on the learning rates. Under ``accelerate launch`` the processes share each batch. Raises
    SystemExit(143) at SIGTERM, when the state is saved.
    """
    goal, folder = Goal.for_candidates(method.candidates, settings), Path(folder)
    partial = folder.parent / f".{folder.name}.partial"
    with explained():
        trainer = Trainer(inputs, method, settings, rate=rate, seed=seed)
        computers = [trainer.group.num_processes, *trainer.hardware()]
        fingerprint = fingerprint_of(inputs, method, settings, rate, seed, computers)
        with resume.saver(save_minutes) as saver:
            run = _Run(trainer, partial, fingerprint, saver)
            names = goal.names
            while not goal.is_reached(run.history):
                if not run.epoch():
                    names = []
                    break
                run.keep(name for name in names if epoch_of(name, run.history) == len(run.history))
                latest = run.history[-1]
                losses = f"{latest['train_loss']:.4f} {latest['validation_loss']:.4f}"
                progress(len(run.history), goal.last_epoch, f"epochs, losses {losses}")
                run.save_if_due()
    if trainer.is_main:
        _finish(partial, folder, run.history, names)
    trainer.group.destroy_process_group()


def fingerprint_of(
    inputs: FinetuneInputs, method: Method, settings: Finetune, rate: float, seed: int, computers: Sequence
) -> str:
    """What a fine-tuning computes from, as a digest: a state is resumed only by a run with the same.

    ``computers``: the number of processes, the precision and the name of the GPU, on which low bits depend.
    """
    facts = [method.model_dump(), prompts.digest(method.conditioning), settings.model_dump(), rate, seed, *computers]
    return resume.identity(__name__, facts, inputs.model_dump(exclude_none=True).values())


@dataclass(frozen=True)
class Goal:
    """When a training ends, and the candidates that it leaves."""

    names: list[str]  # of candidates, without epochs that are not reached
    last_epoch: int
    patience: int | None  # None: it does not stop early
    first_epochs: int  # that are trained whatever the validation loss

    @classmethod
    def for_candidates(cls, candidate_names: Sequence[str], settings: Finetune) -> "Goal":
        epochs = {name: int(name[6:]) for name in candidate_names if name.startswith("epoch-")}
        names = [name for name in candidate_names if epochs.get(name, 0) <= settings.max_epochs]
        numbered = [epochs[name] for name in names if name in epochs]
        if len(numbered) == len(names):
            return cls(names, max(numbered), None, 1)
        return cls(names, settings.max_epochs, settings.patience, max(numbered, default=1))

    def is_reached(self, history: Sequence[Mapping]) -> bool:
        if len(history) >= self.last_epoch:
            return True
        return self.patience is not None and stagnates(history, self.patience, self.first_epochs)


class _Run:
    """A training's epochs: the losses of those that are done, and how far the present one is, saved now and then."""

    def __init__(self, trainer: Trainer, partial: Path, fingerprint: str, saver: resume.Saver):
        self.trainer, self.partial, self.fingerprint, self.saver = trainer, partial, fingerprint, saver
        self.history, self.position = trainer.restore(partial / STATE, fingerprint)
        if trainer.is_main and not (self.history or self.position["step"]):
            shutil.rmtree(partial, ignore_errors=True)

    def epoch(self) -> bool:
        """Train for an epoch, or its rest, and note both losses; returns whether the learning rate does not diverge."""
        trainer, epoch = self.trainer, len(self.history) + 1
        order = generator(trainer.seed, "finetune", "order", epoch).permutation(len(trainer.tables["train"]))
        cut = trainer.batches("train", order, trainer.settings.batch_size)
        batches = [(positions, epoch, step) for step, positions in enumerate(cut)]
        for step in range(self.position["step"], len(batches)):
            loss = trainer.step(*batches[step], batches[step + 1] if step + 1 < len(batches) else None)
            self._note(loss, len(batches[step][0]))
            if self.position["skipped"] == PATIENCE:
                break
            self.save_if_due()
        train_loss = self.position["loss"] / self.position["images"] if self.position["images"] else math.inf
        diverges = self.position["skipped"] == PATIENCE
        validation_loss = math.inf if diverges else trainer.validation_loss()
        if not math.isfinite(validation_loss):
            print(f"losses are not finite in epoch {epoch}: this learning rate diverges", flush=True)
            train_loss = validation_loss = math.inf
        self.history.append({"epoch": epoch, "train_loss": train_loss, "validation_loss": validation_loss})
        self.position = START | {"skipped": self.position["skipped"]}
        return math.isfinite(validation_loss)

    def _note(self, loss: float, images: int) -> None:
        """Count a step that is done; one whose loss is not finite changed nothing and counts for nothing."""
        position = self.position
        if math.isfinite(loss):
            position |= {"loss": position["loss"] + loss, "images": position["images"] + images, "skipped": 0}
        else:
            position |= {"skipped": position["skipped"] + 1}
            print(f"the loss of step {position['step'] + 1} is not finite: the step is left out", flush=True)
        self.position = position | {"step": position["step"] + 1}

    def keep(self, names: Iterable[str]) -> None:
        """Write the model as it is now as these candidates."""
        names = list(names)
        if not names:
            return
        candidate = self.trainer.turns.candidate()
        if self.trainer.is_main:
            for name in names:
                candidates.save(self.partial / f"{name}.safetensors", candidate, self.trainer.candidate_type)

    def save_if_due(self) -> None:
        if collectives.any_process(self.saver.due()):  # they leave together
            self.trainer.save(self.partial / STATE, self.fingerprint, self.history, self.position)
            self.trainer.group.wait_for_everyone()
            self.saver.done()


def _finish(partial: Path, folder: Path, history: Sequence[Mapping], names: Sequence[str]) -> None:
    """Put the folder of a training that has ended where it belongs, with these candidates."""
    for file in partial.glob("*.safetensors"):
        if file.stem not in names and file.name != STATE:
            file.unlink()
    rows = [{"candidate": name, **history[epoch_of(name, history) - 1]} for name in names]
    write_csv(candidates.history_file(folder), pd.DataFrame(history))
    write_csv(partial / "candidates.csv", pd.DataFrame(rows, columns=["candidate", *history[0]]))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)  # each file in it is flushed
    (folder / STATE).unlink(missing_ok=True)


def epoch_of(candidate: str, history: Sequence[Mapping]) -> int:
    """The epoch (from 1) that a candidate is, as far as training went; the first of equals."""
    if candidate.startswith("epoch-"):
        return int(candidate[6:])
    key = {"best_train": "train_loss", "best_validation": "validation_loss"}[candidate]
    return min(history, key=lambda row: row[key])["epoch"]


def stagnates(history: Sequence[Mapping], patience: int, least: int = 1) -> bool:
    """Whether the validation loss has not fallen for ``patience`` epochs; never before epoch ``least``."""
    if len(history) < max(least, patience + 1):
        return False
    return len(history) - epoch_of("best_validation", history) >= patience
