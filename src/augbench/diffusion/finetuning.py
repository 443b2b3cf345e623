"""The fine-tuner: adapts conditionings, pseudo-words or the denoiser to the target (paper, section 3.1).

What a method trains is data (``trained``); the objective is Stable Diffusion's own. Every random choice is
derived from (seed, epoch, step) and drawn for the whole batch, so neither the number of processes nor a
restart changes it.
"""

import contextlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench.core import collectives, resume
from augbench.core.files import write_csv
from augbench.core.processes import forget_launchers
from augbench.core.seeds import derive, generator, torch_generator
from augbench.diffusion import conditioning
from augbench.diffusion.objective import adaptable, guides_of, losses, noise_schedule, sample_posterior
from augbench.models.backbones import UNCHECKED

STATE = "state.safetensors"
# Vectors that are learned have no reason to shrink, least of all those of classes that a batch has no image of.
UNET_DECAY = 0.01
LARGEST_NORM = 1.0  # of a step's gradient; larger ones are scaled down to it
START = {"step": 0, "loss": 0.0}  # of an epoch: steps done, and the summed loss of their images


def finetune(
    pipeline_folder: str | Path,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    train_latents: str | Path,
    validation_latents: str | Path,
    classes: Sequence[Mapping],
    method: Mapping,
    folder: str | Path,
    *,
    clusters: Mapping[str, Sequence[int]] | None = None,
    seed: int,
    rate: float,
    learning_rates: Mapping[str, float],
    batch_size: int,
    images_at_a_time: int,
    max_epochs: int,
    patience: int,
    validation_images: int,
    horizontal_flip: bool,
    gradient_checkpointing: bool,
    threads: int,
    save_minutes: float,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Train the method's parts on all classes at once and write its candidates (section 3.1).

    ``folder`` receives ``{best_train,best_validation,epoch-N}.safetensors`` as far as the method names them,
    ``candidates.csv`` (candidate, epoch, train_loss, validation_loss) and ``history.csv`` (epoch, both losses).
    Training ends when the validation loss, taken with the same noise in each epoch, has not fallen
    for ``patience`` epochs, or after ``max_epochs``; a method without best candidates is trained as far as
    its last epoch is named. A loss that is not finite ends it as well: both losses of that epoch are infinite and
    there is no candidate, so that other learning rates are preferred. A killed run goes on from the last state and ends
    with the same bytes.

    Parameters
    ----------
    train, validation : image tables; ..._latents : their posteriors, see :mod:`augbench.diffusion.latents`
    classes : what is known of each class, see :func:`augbench.study.prompts.fill`
    method : the method's row of the method table
    clusters : ``train`` and ``validation`` -> cluster of each image, for methods with clusters
    rate : factor on ``learning_rates``, which hold for a batch of one and grow with its square root
    batch_size : images per step over all processes; images_at_a_time : of them in a process's memory

    Under ``accelerate launch`` the processes share each batch. Raises SystemExit(143) at SIGTERM, when the
    state is saved.
    """
    names = [name for name in method["candidates"] if not name.startswith("epoch-") or int(name[6:]) <= max_epochs]
    numbered = [int(name[6:]) for name in names if name.startswith("epoch-")]
    stops_early = len(numbered) < len(names)
    last = max_epochs if stops_early else max(numbered)
    settings = [seed, rate, learning_rates, batch_size, images_at_a_time, max_epochs, patience, validation_images]
    settings += [horizontal_flip, threads, list(method.items()), list(map(dict, classes)), clusters]
    settings += [list(train["image_id"]), list(validation["image_id"])]
    trainer = _Trainer(
        pipeline_folder,
        {"train": train, "validation": validation},
        {"train": train_latents, "validation": validation_latents},
        classes,
        method,
        clusters or {},
        seed=seed,
        rates={part: rate * math.sqrt(batch_size) * learning_rates[part] for part in method["trained"]},
        images_at_a_time=images_at_a_time,
        mirrored=horizontal_flip,
        gradient_checkpointing=gradient_checkpointing,
        threads=threads,
    )
    folder = Path(folder)
    partial = folder.parent / f".{folder.name}.partial"
    processes = trainer.accelerator.num_processes
    data = [pipeline_folder, train_latents, validation_latents]
    who = resume.identity(__name__, [*settings, processes], data)
    history, position = trainer.restore(partial / STATE, who)
    main = trainer.accelerator.is_main_process
    if main and not (history or position["step"]):
        shutil.rmtree(partial, ignore_errors=True)

    with resume.saver(save_minutes) as saver:

        def save_if_due() -> None:
            if collectives.any_process(saver.due()):  # they leave together
                if main:
                    trainer.save(partial / STATE, who, history, position)
                trainer.accelerator.wait_for_everyone()
                saver.done()

        while len(history) < last and not (stops_early and stagnates(history, patience, max(numbered, default=1))):
            epoch = len(history) + 1
            order = generator(seed, "finetune", "order", epoch).permutation(len(train))
            for step in range(position["step"], math.ceil(len(order) / batch_size)):
                loss = trainer.step(order[step * batch_size : (step + 1) * batch_size], epoch, step)
                position = {"step": step + 1, "loss": position["loss"] + loss}
                if not math.isfinite(loss):
                    break
                save_if_due()
            both = [position["loss"] / len(train)]
            if math.isfinite(both[0]):
                both.append(trainer.validation_loss(validation_images, 2 * batch_size))
            if not all(map(math.isfinite, both)):
                print(f"the loss is not finite in epoch {epoch}: this learning rate diverges", flush=True)
                history.append({"epoch": epoch, "train_loss": math.inf, "validation_loss": math.inf})
                names = []
                break
            history.append({"epoch": epoch, "train_loss": both[0], "validation_loss": both[1]})
            position = dict(START)
            is_now = [name for name in names if _epoch_of(name, history) == epoch]
            if main and is_now:
                now = trainer.model.candidate()
                for name in is_now:
                    conditioning.save(partial / f"{name}.safetensors", now)
            note = f"epochs, losses {history[-1]['train_loss']:.4f} {history[-1]['validation_loss']:.4f}"
            progress(epoch, last, note)
            save_if_due()
    if main:
        rows = [{"candidate": name} | history[_epoch_of(name, history) - 1] for name in names]
        for file in partial.glob("*.safetensors"):
            if file.stem not in names and file.name != STATE:
                file.unlink()
        write_csv(partial / "history.csv", pd.DataFrame(history))
        write_csv(partial / "candidates.csv", pd.DataFrame(rows, columns=["candidate", *history[0]]))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)  # each file in it is flushed
        (folder / STATE).unlink(missing_ok=True)
    trainer.accelerator.end_training()


class _Trainer:
    """A model with its optimiser and data, in one of perhaps several processes that share each batch."""

    def __init__(
        self,
        pipeline_folder: str | Path,
        tables: Mapping[str, pd.DataFrame],
        latents: Mapping[str, str | Path],
        classes: Sequence[Mapping],
        method: Mapping,
        clusters: Mapping[str, Sequence[int]],
        *,
        seed: int,
        rates: Mapping[str, float],
        images_at_a_time: int,
        mirrored: bool,
        gradient_checkpointing: bool,
        threads: int,
    ):
        import torch
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from diffusers import StableDiffusionPipeline
        from safetensors.torch import load_file

        torch.set_num_threads(threads)
        self.seed, self.images_at_a_time, self.mirrored = seed, images_at_a_time, mirrored
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        forget_launchers()
        ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        self.accelerator = Accelerator(mixed_precision=_precision(), kwargs_handlers=[ddp])
        device, precision = self.accelerator.device, self.accelerator.mixed_precision
        pipeline = StableDiffusionPipeline.from_pretrained(pipeline_folder, **UNCHECKED)
        self.scaling, self.schedule = pipeline.vae.config.scaling_factor, noise_schedule(pipeline.scheduler)
        pipeline.vae = None
        if device.type == "cuda":
            frozen = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
            pipeline.text_encoder.to(device, frozen)
            pipeline.unet.to(device, torch.float32 if "unet" in method["trained"] else frozen)
            pipeline.unet.to(memory_format=torch.channels_last)
        self.model, encodings = adaptable(pipeline, classes, method, gradient_checkpointing)
        self.guides = {
            name: guides_of(table, classes, method, clusters.get(name), pipeline.tokenizer, encodings)
            for name, table in tables.items()
        }
        self.posteriors = {name: load_file(path) for name, path in latents.items()}
        groups = self.model.groups.items()
        decay = {"unet": UNET_DECAY}
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rates[part], "weight_decay": decay.get(part, 0.0)} for part, group in groups],
            fused=device.type == "cpu",  # which would loop over the tensors; on a GPU they go together by themselves
        )
        # Not the optimiser: accelerate's wrapper would unscale and step it out of sight of the batch's parts.
        self.denoiser = self.accelerator.prepare_model(self.model)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def step(self, positions, epoch: int, step: int) -> float:
        """One step on the images at these positions, shared by all processes; returns their summed loss."""
        import torch

        key, total = (self.seed, "finetune", epoch, step), 0.0
        self.model.train()
        for part, weight, is_last in self._parts("train", torch.from_numpy(positions), (*key, "noise"), key):
            # DDP averages over processes. Only the last part of a batch is sent to the others: they may have fewer.
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.denoiser):
                found = weight * self._losses(part)
                self.scaler.scale(found.sum() * self.accelerator.num_processes / len(positions)).backward()
            total += found.detach().sum()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(
            [weights for group in self.model.groups.values() for weights in group], LARGEST_NORM
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return self.accelerator.reduce(total.reshape(1), "sum").item()

    def validation_loss(self, images: int, batch_size: int) -> float:
        """The mean loss of (at most so many) validation images, with the same noise each time."""
        import torch

        count = len(self.posteriors["validation"]["parameters"])
        order = generator(self.seed, "finetune", "validation").permutation(list(range(0, count, -(-count // images))))
        total = torch.zeros(1, device=self.accelerator.device)
        self.model.eval()
        with torch.no_grad():
            for start in range(0, len(order), batch_size):
                key = (self.seed, "finetune", "validation", start)
                positions = torch.from_numpy(order[start : start + batch_size])
                for part, weight, _ in self._parts("validation", positions, key, key, stratified=True):
                    total += weight * self._losses(part).sum()
        return self.accelerator.reduce(total, "sum").item() / len(order)

    def _losses(self, part: Sequence):
        with self.accelerator.autocast():
            return losses(self.denoiser, self.schedule, *part)

    def _parts(self, split: str, positions, noise_key: tuple, guide_key: tuple, stratified: bool = False):
        """This process's share of a batch, part by part: latents, noise, timesteps and guides, what its losses count,
        and whether it is the last part.

        Noise is drawn for the whole batch in every process. ``stratified``: noised evenly over the schedule, and
        never mirrored, so that the loss has little noise itself.
        """
        import torch

        accelerator = self.accelerator
        random = torch_generator(derive(*noise_key))
        stored, count = self.posteriors[split]["parameters"], len(positions)
        shape = (count, stored.shape[1] // 2, *stored.shape[2:])
        for_latents, noise = (torch.randn(shape, generator=random) for _ in range(2))
        total = self.schedule.config.num_train_timesteps
        timesteps = torch.randint(0, total, (count,), generator=random)
        flipped = torch.rand(count, generator=random) < 0.5
        parameters = stored[positions]
        if stratified:
            timesteps = torch.arange(count) * total // count
        elif self.mirrored:
            mirrored = self.posteriors[split]["mirrored"][positions]
            parameters = torch.where(flipped.view(-1, 1, 1, 1), mirrored, parameters)
        latents = sample_posterior(parameters, for_latents, self.scaling)
        guides = self.guides[split](positions, *guide_key)
        mine, weight = list(range(accelerator.process_index, count, accelerator.num_processes)), 1.0
        if not mine:  # fewer images than processes: take part with one that counts nothing
            mine, weight = [0], 0.0
        for start in range(0, len(mine), self.images_at_a_time):
            part = mine[start : start + self.images_at_a_time]
            tensors = [tensor[part].to(accelerator.device) for tensor in (latents, noise, timesteps, guides)]
            yield tensors, weight, start + self.images_at_a_time >= len(mine)

    def save(self, path: Path, who: str, history: list[dict], position: dict) -> None:
        note = {"history": history, "position": position, "scaler": self.scaler.state_dict()}
        groups = {"trained": self.model.candidate(), "optimizer": resume.optimizer_tensors(self.optimizer)}
        resume.save(path, who, note, groups)

    def restore(self, path: Path, who: str) -> tuple[list[dict], dict]:
        """History and position in the epoch of a run of the same identity; empty if there is none."""
        kept = resume.load(path, who, ["trained", "optimizer"])
        if not kept:
            return [], dict(START)
        note, groups = kept
        self.model.restore(groups["trained"])
        resume.restore_optimizer(self.optimizer, groups["optimizer"])
        self.scaler.load_state_dict(note["scaler"])
        print(f"going on in epoch {len(note['history']) + 1}, step {note['position']['step']}", flush=True)
        return note["history"], note["position"]


def _epoch_of(candidate: str, history: Sequence[Mapping]) -> int:
    """The epoch (from 1) that a candidate is, as far as training went; the first of equals."""
    if candidate.startswith("epoch-"):
        return int(candidate[6:])
    key = {"best_train": "train_loss", "best_validation": "validation_loss"}[candidate]
    return min(history, key=lambda row: row[key])["epoch"]


def stagnates(history: Sequence[Mapping], patience: int, least: int = 1) -> bool:
    """Whether the validation loss has not fallen for ``patience`` epochs; never before epoch ``least``."""
    if len(history) < max(least, patience + 1):
        return False
    return len(history) - _epoch_of("best_validation", history) >= patience


def _precision() -> str:
    """Mixed precision for this machine: float16 for V100 and T4, which only emulate bfloat16."""
    import torch

    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
