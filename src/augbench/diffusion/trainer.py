"""A model that is fine-tuned, with its optimiser and data, in one of perhaps several processes that share each batch.

Every random choice is derived from (seed, epoch, step) and drawn for the whole batch, so neither the number of
processes nor a restart changes it.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from augbench import images
from augbench.core import resume
from augbench.core.processes import forget_launchers
from augbench.core.seeds import derive, generator, torch_generator
from augbench.diffusion import clusters, latents
from augbench.diffusion.objective import losses, noise_schedule, sample_posterior
from augbench.diffusion.trained_model import TrainedModel
from augbench.models.backbones import UNCHECKED
from augbench.study import classes
from augbench.study.methods import Method
from augbench.study.parts import Part
from augbench.study.sections.base import Inputs
from augbench.study.sections.diffusion import Finetune

LARGEST_NORM = 1.0  # of a step's gradient; larger ones are scaled down to it
START = {"step": 0, "loss": 0.0}  # of an epoch: steps done, and the summed loss of their images


class FinetuneInputs(Inputs):
    """Paths: a pipeline, the class table, image tables, their latents, and the clusters of methods that have such."""

    backbone: str
    classes: str
    train: str
    validation: str
    train_latents: str
    validation_latents: str
    clusters: str | None = None


class MicroBatch(NamedTuple):
    """Images of one forward pass; what their losses count, and whether it is this process's last of the batch."""

    tensors: list  # latents, noise, timesteps and guides, on the device
    weight: float
    is_last: bool


def scaled_rates(method: Method, settings: Finetune, rate: float) -> dict[Part, float]:
    """Each part's learning rate: the configured one, times a factor, times the square root of the batch."""
    factor = rate * math.sqrt(settings.batch_size)
    return {part: factor * getattr(settings.learning_rates, part.name) for part in method.trained}


class Trainer:
    """Steps and losses of a fine-tuning; ``tables`` holds the training and validation images."""

    def __init__(self, inputs: FinetuneInputs, method: Method, settings: Finetune, *, rate: float, seed: int):
        torch.set_num_threads(settings.threads)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        self.settings, self.seed = settings, seed
        forget_launchers()
        ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        self.accelerator: Any = Accelerator(mixed_precision=mixed_precision(), kwargs_handlers=[ddp])
        device, precision = self.accelerator.device, self.accelerator.mixed_precision

        self.tables = {name: images.read(getattr(inputs, name)) for name in ("train", "validation")}
        self.posteriors = {
            name: latents.read(getattr(inputs, f"{name}_latents"), table) for name, table in self.tables.items()
        }
        pipeline = _load(inputs.backbone, method, device, precision)
        self.scaling, self.schedule = pipeline.vae.config.scaling_factor, noise_schedule(pipeline.scheduler)
        class_rows = classes.kept(inputs.classes)
        self.model = TrainedModel(pipeline, class_rows, method, settings)
        members = clusters.read_members(inputs.clusters, method.clusters, self.tables) if inputs.clusters else {}
        self.guides = {
            name: method.guide.of_images(table, class_rows, method, members.get(name), self.model)
            for name, table in self.tables.items()
        }

        rates = scaled_rates(method, settings, rate)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": group, "lr": rates[part], "weight_decay": part.weight_decay}
                for part, group in self.model.groups.items()
            ],
            fused=device.type == "cpu",  # which would loop over the tensors; on a GPU they go together by themselves
        )
        # Not the optimiser: accelerate's wrapper would unscale and step it out of sight of the micro-batches.
        self.denoiser = self.accelerator.prepare_model(self.model)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def step(self, positions, epoch: int, step: int) -> float:
        """One step on the images at these positions, shared by all processes; returns their summed loss."""
        key, total = (self.seed, "finetune", epoch, step), 0.0
        self.model.train()
        for part in self._micro_batches("train", torch.from_numpy(positions), (*key, "noise"), key):
            # DDP averages over processes. Only a batch's last pass is sent to the others: they may have fewer.
            with contextlib.nullcontext() if part.is_last else self.accelerator.no_sync(self.denoiser):
                each = part.weight * self._losses(part)
                self.scaler.scale(each.sum() * self.accelerator.num_processes / len(positions)).backward()
            total += each.detach().sum()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(
            [weights for group in self.model.groups.values() for weights in group], LARGEST_NORM
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return self.accelerator.reduce(torch.as_tensor(total).reshape(1), "sum").item()

    def validation_loss(self) -> float:
        """The mean loss of the validation images, or so many of them, with the same noise each time."""
        count, batch_size = len(self.tables["validation"]), 2 * self.settings.batch_size
        chosen = list(range(0, count, -(-count // self.settings.validation_images)))
        order = generator(self.seed, "finetune", "validation").permutation(chosen)
        total = torch.zeros(1, device=self.accelerator.device)
        self.model.eval()
        with torch.no_grad():
            for start in range(0, len(order), batch_size):
                key = (self.seed, "finetune", "validation", start)
                positions = torch.from_numpy(order[start : start + batch_size])
                for part in self._micro_batches("validation", positions, key, key, stratified=True):
                    total += part.weight * self._losses(part).sum()
        return self.accelerator.reduce(total, "sum").item() / len(order)

    def _losses(self, part: MicroBatch):
        with self.accelerator.autocast():
            return losses(self.denoiser, self.schedule, *part.tensors)

    def _micro_batches(
        self, split: str, positions, noise_key: tuple, guide_key: tuple, stratified: bool = False
    ) -> Iterator[MicroBatch]:
        """This process's share of a batch, one forward pass after the other."""
        drawn = self._noised(split, positions, noise_key, stratified)
        batch = (*drawn, self.guides[split](positions, *guide_key))
        mine = list(range(self.accelerator.process_index, len(positions), self.accelerator.num_processes))
        weight = 1.0
        if not mine:  # fewer images than processes: take part with one that counts nothing
            mine, weight = [0], 0.0
        size = self.settings.images_at_a_time
        for start in range(0, len(mine), size):
            part = mine[start : start + size]
            tensors = [tensor[part].to(self.accelerator.device) for tensor in batch]
            yield MicroBatch(tensors, weight, start + size >= len(mine))

    def _noised(self, split: str, positions, key: tuple, stratified: bool) -> tuple:
        """Latents, noise and timesteps of a whole batch, which every process draws.

        ``stratified``: noised evenly over the schedule, and never mirrored, so that the loss has little noise itself.
        """
        random = torch_generator(derive(*key))
        stored, count = self.posteriors[split]["parameters"], len(positions)
        shape = (count, stored.shape[1] // 2, *stored.shape[2:])
        for_latents, noise = (torch.randn(shape, generator=random) for _ in range(2))
        total = self.schedule.config.num_train_timesteps
        timesteps = torch.randint(0, total, (count,), generator=random)
        flipped = torch.rand(count, generator=random) < 0.5
        parameters = stored[positions]
        if stratified:
            timesteps = torch.arange(count) * total // count
        elif self.settings.horizontal_flip:
            mirrored = self.posteriors[split]["mirrored"][positions]
            parameters = torch.where(flipped.view(-1, 1, 1, 1), mirrored, parameters)
        return sample_posterior(parameters, for_latents, self.scaling), noise, timesteps

    def save(self, path: Path, fingerprint: str, history: Sequence[Mapping], position: Mapping) -> None:
        note = {"history": history, "position": position, "scaler": self.scaler.state_dict()}
        groups = {"trained": self.model.candidate(), "optimizer": resume.optimizer_tensors(self.optimizer)}
        resume.save(path, fingerprint, note, groups)

    def restore(self, path: Path, fingerprint: str) -> tuple[list[dict], dict]:
        """History and position in the epoch of a run of the same fingerprint; empty if there is none."""
        kept = resume.load(path, fingerprint, ["trained", "optimizer"])
        if not kept:
            return [], dict(START)
        note, groups = kept
        self.model.restore(groups["trained"])
        resume.restore_optimizer(self.optimizer, groups["optimizer"])
        self.scaler.load_state_dict(note["scaler"])
        print(f"going on in epoch {len(note['history']) + 1}, step {note['position']['step']}", flush=True)
        return note["history"], note["position"]


def mixed_precision() -> str:
    """Mixed precision for this machine: float16 for V100 and T4, which only emulate bfloat16."""
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _load(folder: str | Path, method: Method, device, precision: str):
    """The pipeline without its safety checker; on a GPU what stays frozen is in half precision."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, **UNCHECKED)
    if device.type == "cuda":
        frozen = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
        full = any(part.needs_full_precision for part in method.trained)
        pipeline.text_encoder.to(device, frozen)
        pipeline.unet.to(device, torch.float32 if full else frozen)
        pipeline.unet.to(memory_format=torch.channels_last)
    return pipeline
