"""A model that is fine-tuned, with its optimiser and data, in one of perhaps several processes that share each batch.

Every random choice is derived from (seed, epoch, step) and drawn for the whole batch, so neither the number of
processes nor a restart changes it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from augbench import images
from augbench.core import collectives, determinism, resume
from augbench.core.seeds import derive, generator, torch_generator
from augbench.diffusion import clusters, latents
from augbench.diffusion.class_adapters import ClassByClass, Together
from augbench.diffusion.memory_limit import MemoryLimit
from augbench.diffusion.objective import draw_timesteps, even_timesteps, losses, noise_schedule, sample_posterior
from augbench.diffusion.optimizer import Optimizer
from augbench.diffusion.trained_model import TrainedModel
from augbench.models import families
from augbench.models.backbones import read_pipeline
from augbench.study import classes
from augbench.study.methods import Method
from augbench.study.parts import Part
from augbench.study.sections.base import Inputs
from augbench.study.sections.diffusion import Finetune

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
MEMORY_FORMAT = torch.channels_last  # of the denoiser on a GPU, whose convolutions are made for it
TOLERATED = 0.05  # share of the validation images whose loss may overflow
# Of an epoch: steps done; images with a finite loss, and its sum; steps in a row without one, also of epochs before.
START = {"step": 0, "loss": 0.0, "images": 0, "skipped": 0}


class FinetuneInputs(Inputs):
    """Paths: a pipeline, the class table, image tables, their latents, and the clusters of methods that have such."""

    backbone: str
    classes: str
    train: str
    validation: str
    train_latents: str
    validation_latents: str
    clusters: str | None = None


class Batch(NamedTuple):
    """A batch of images, the same in every process: latents, noise and timesteps, on the CPU, and guides."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    guides: torch.Tensor


def scaled_rates(method: Method, settings: Finetune, rate: float) -> dict[Part, float]:
    """Each part's learning rate: the configured one, times a factor, times the square root of the batch."""
    factor = rate * math.sqrt(settings.batch_size)
    return {part: factor * getattr(settings.learning_rates, part.name) for part in method.trained}


class Trainer:
    """Steps and losses of a fine-tuning; ``tables`` holds the training images, and the validation images that its loss
    is taken over."""

    def __init__(self, inputs: FinetuneInputs, method: Method, settings: Finetune, *, rate: float, seed: int):
        torch.set_num_threads(settings.threads)
        determinism.require(strict=True)
        self.settings, self.seed, self.precision = settings, seed, mixed_precision()
        self.group = collectives.group()

        validation = latents.sample(images.read(inputs.validation), settings.validation_images)
        self.tables = {"train": images.read(inputs.train), "validation": validation}
        self.posteriors = {
            name: latents.read(getattr(inputs, f"{name}_latents"), table) for name, table in self.tables.items()
        }
        family = families.of_folder(inputs.backbone)
        families.check_method(family, method, "this method")
        # Of larger families, of which adapters alone are trained, nothing is ever in full precision on a GPU.
        pipeline = read_pipeline(inputs.backbone, None if family.has_own_sampler else PRECISIONS.get(self.precision))
        config = pipeline.vae.config
        self.scaling = (config.scaling_factor, config.get("shift_factor") or 0.0)
        self.schedule = noise_schedule(pipeline.scheduler)
        class_rows = classes.kept(inputs.classes)
        self.model = _placed(pipeline, class_rows, method, settings, self.device, self.precision, seed)
        members = clusters.read_members(inputs.clusters, method.clusters, self.tables) if inputs.clusters else {}
        self.guides = {
            name: method.guide.of_images(table, class_rows, method, members.get(name), self.model)
            for name, table in self.tables.items()
        }

        self.optimizer = Optimizer(self.model, scaled_rates(method, settings, rate))
        self.turns = Together(self.model, self.optimizer)
        if method.per_class:
            self.turns = ClassByClass(self.model, self.optimizer, [row["class"] for row in class_rows])
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        share = -(-settings.batch_size // self.group.num_processes)
        self.memory = MemoryLimit(self.model.unet, settings, share, self.device)
        self._ahead: tuple | None = None  # the next batch, with what it is drawn by

    @property
    def device(self) -> torch.device:
        return self.group.device

    @property
    def is_main(self) -> bool:
        return self.group.is_main_process

    @property
    def candidate_type(self) -> torch.dtype | None:
        """Of the numbers in candidates: on a GPU the sampler's float16, half the size; None for all as they are."""
        return torch.float16 if self.precision in PRECISIONS else None

    def step(self, positions, epoch: int, step: int, upcoming: tuple | None = None) -> float:
        """One step on the images at these positions, shared by all processes; returns their summed loss.

        Where that is not finite nothing changes, nor where the gradient is not: in float16 the next one is then scaled
        less, otherwise the loss counts as infinite. ``upcoming`` are these arguments of the next step: its batch is
        drawn while the GPU computes.
        """
        batch = self._training_batch(positions, epoch, step)
        self._turn_to("train", positions)
        self.model.train()
        self.model.begin(batch.guides)
        total = self.memory.within(lambda: self._gradients(batch))
        if upcoming:
            self._ahead = upcoming, self._training_batch(*upcoming)
        self.optimizer.join()
        self.scaler.unscale_(self.optimizer)
        loss, norm = torch.cat([collectives.total(total), self.optimizer.clip().reshape(1)]).tolist()
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step()
        self.scaler.update()
        self.optimizer.clear()
        self.model.end()
        return loss if math.isfinite(norm) or self.scaler.is_enabled() else math.inf

    def batches(self, split: str, order, size: int) -> list:
        """Images of a split, positions in this order, in batches of what is trained together."""
        return self.turns.batches(order, list(self.tables[split]["class"]), size)

    def _turn_to(self, split: str, positions) -> None:
        self.turns.turn_to(self.tables[split]["class"].iloc[int(positions[0])])

    def _gradients(self, batch: Batch) -> torch.Tensor:
        """Compute the gradients of this process's share of a batch; returns its summed loss, (1,)."""
        self.optimizer.clear()
        total = torch.zeros(1, device=self.device)
        for part in self._micro_batches(batch):
            each = self._losses(part)
            self.scaler.scale(each.sum() / len(batch.noise)).backward()
            total += each.detach().sum()
        return total

    def validation_loss(self) -> float:
        """The mean loss of the validation images, with the same noise each time.

        Images whose loss is not finite are left out, unless they are more than ``TOLERATED``: then it is infinite.
        """
        batch_size = 2 * self.settings.batch_size
        order = generator(self.seed, "finetune", "validation").permutation(len(self.tables["validation"]))
        sums = torch.zeros(2, device=self.device)  # of finite losses, and how many others there are
        self.model.eval()
        with torch.no_grad():
            start = 0
            for positions in self.batches("validation", order, batch_size):
                key = (self.seed, "finetune", "validation", start)
                start += len(positions)
                self._turn_to("validation", positions)
                batch = self._batch("validation", torch.from_numpy(positions), key, key, stratified=True)
                self.model.begin(batch.guides)
                sums += self.memory.within(lambda batch=batch: self._validated(batch))
        self.model.end()
        loss, left_out = collectives.total(sums).tolist()
        if left_out:
            print(f"the loss of {left_out:.0f} of {len(order)} validation images is not finite", flush=True)
        return loss / (len(order) - left_out) if left_out <= TOLERATED * len(order) else math.inf

    def _validated(self, batch: Batch) -> torch.Tensor:
        sums = torch.zeros(2, device=self.device)
        for part in self._micro_batches(batch):
            each = self._losses(part)
            is_finite = each.isfinite()
            sums += torch.stack([each.where(is_finite, 0.0).sum(), (~is_finite).sum().float()])
        return sums

    def _losses(self, part: Batch) -> torch.Tensor:
        dtype = PRECISIONS.get(self.precision, torch.float32)
        # Each weight is cast once in a pass: kept, its half-precision copies would only fill the memory.
        with torch.autocast(self.device.type, dtype, enabled=self.precision in PRECISIONS, cache_enabled=False):
            return losses(self.model, self.schedule, part.latents, part.noise, part.timesteps, part.guides)

    def _training_batch(self, positions, epoch: int, step: int) -> Batch:
        drawn, self._ahead = self._ahead, None
        if drawn and drawn[0][1:] == (epoch, step):
            return drawn[1]
        key = (self.seed, "finetune", epoch, step)
        return self._batch("train", torch.from_numpy(positions), (*key, "noise"), key)

    def _batch(self, split: str, positions, noise_key: tuple, guide_key: tuple, stratified: bool = False) -> Batch:
        return Batch(*self._noised(split, positions, noise_key, stratified), self.guides[split](positions, *guide_key))

    def _micro_batches(self, batch: Batch) -> Iterator[Batch]:
        """This process's share of a batch on its device, one forward pass after the other."""
        mine = list(range(self.group.process_index, len(batch.noise), self.group.num_processes))
        for start in range(0, len(mine), self.memory.images):
            part = mine[start : start + self.memory.images]
            yield Batch(*(tensor[part].to(self.device) for tensor in batch))

    def _noised(
        self, split: str, positions, key: tuple, stratified: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents, noise and timesteps of a whole batch, which every process draws.

        ``stratified``: noised evenly over the schedule, and never mirrored, so that the loss has little noise itself.
        """
        random = torch_generator(derive(*key))
        stored, count = self.posteriors[split]["parameters"], len(positions)
        shape = (count, stored.shape[1] // 2, *stored.shape[2:])
        for_latents, noise = (torch.randn(shape, generator=random) for _ in range(2))
        timesteps = draw_timesteps(self.schedule, count, random)
        flipped = torch.rand(count, generator=random) < 0.5
        parameters = stored[positions]
        if stratified:
            timesteps = even_timesteps(self.schedule, count)
        elif self.settings.horizontal_flip:
            mirrored = self.posteriors[split]["mirrored"][positions]
            parameters = torch.where(flipped.view(-1, 1, 1, 1), mirrored, parameters)
        return sample_posterior(parameters, for_latents, *self.scaling), noise, timesteps

    def save(self, path: Path, fingerprint: str, history: Sequence[Mapping], position: Mapping) -> None:
        """Write what :meth:`restore` goes on from. All processes call it, and the first writes."""
        note = {"history": history, "position": position, "scaler": self.scaler.state_dict()}
        note |= {"memory": self.memory.state()}
        groups = self.turns.state()
        if self.is_main:
            resume.save(path, fingerprint, note, groups)

    def restore(self, path: Path, fingerprint: str) -> tuple[list[dict], dict]:
        """History and position in the epoch of a run of the same fingerprint; empty if there is none."""
        kept = resume.load(path, fingerprint, ["trained", "optimizer"])
        if not kept:
            return [], dict(START)
        note, groups = kept
        self.turns.restore(groups)
        self.scaler.load_state_dict(note["scaler"])
        self.memory.restore(note["memory"])
        print(f"going on in epoch {len(note['history']) + 1}, step {note['position']['step']}", flush=True)
        return note["history"], note["position"]

    def hardware(self) -> list[str]:
        """What low bits depend on: the precision, and the name of the GPU, if any."""
        return [self.precision, torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"]


def mixed_precision() -> str:
    """Mixed precision for this machine: float16 for V100 and T4, which only emulate bfloat16."""
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _placed(
    pipeline, class_rows: Sequence[Mapping], method: Method, settings: Finetune, device, precision: str, seed: int
):
    """The model on its device; on a GPU what stays frozen is in half precision.

    What is trained begins as the text encoder computes it in full precision.
    """
    for name, part in pipeline.components.items():
        if name.startswith("text_encoder") and part is not None:
            part.to(device)
    model = TrainedModel(pipeline, class_rows, method, settings, seed)
    if precision in PRECISIONS:
        model.cast_frozen(PRECISIONS[precision])
    if device.type == "cuda":
        model.unet.to(memory_format=MEMORY_FORMAT)
    return model.to(device)
