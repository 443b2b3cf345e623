"""A classifier as it computes: on a GPU or the CPU, in one process or several that share each batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from augbench.classifier.crops import Batches
from augbench.core import collectives, finite
from augbench.core.gpu_memory import Portions
from augbench.study.sections.classifier import Classifier

EVALUATION_BATCH = 256  # fixed, because the batch can change low bits of a result
READ_BATCH = 32  # of images to score that one reader reads at a time
LOWER = "use a lower `classifier: {learning_rate: ...}`"  # the remedy for a training that diverges


class Network:
    """A classifier on the GPU, in mixed precision (float16, as V100 and T4 need it), or else on the CPU; in several
    processes, which share each batch, or in one.

    ``view`` is how it sees pictures, ``pretrained`` where weights come from that training begins with, or keeps; None
    where there are no such. ``head`` is the last layer where nothing else is trained, else None.
    """

    def __init__(self, settings: Classifier, classes: int, has_results: bool = False):
        """``has_results`` : all that is trained will be loaded"""
        group = collectives.group()
        self.device, self.process, self.processes = group.device, group.process_index, group.num_processes
        self.classes, self.mixed = classes, self.device.type == "cuda"
        pretrained = settings.is_pretrained and (settings.train.freezes or not has_results)
        library = settings.library
        module, self.pretrained = library.build(settings.model, classes, settings.image_size, pretrained)
        self.view = library.view(module, settings.image_size)
        self.head = _only_head(module, settings.model) if settings.train.freezes else None
        self.module = module.to(self.device, memory_format=torch.channels_last)
        self.trained = self.module
        if self.processes > 1:
            self.trained = torch.nn.parallel.DistributedDataParallel(self.module)
        self.mean = 255 * torch.tensor(self.view.mean, device=self.device).view(3, 1, 1)
        self.std = 255 * torch.tensor(self.view.std, device=self.device).view(3, 1, 1)

    @property
    def has_attention(self) -> bool:
        """Attention's gradient on a GPU is the same each time only where all of a network's must be; other networks,
        such as VGG, have a layer for which torch has no such gradient."""
        return any(type(module).__name__.endswith("Attention") for module in self.module.modules())

    def normalised(self, pixels):
        """Images as the network takes them, float32 on its device, of uint8 ``pixels`` (batch, 3, size, size)."""
        return (pixels.to(self.device, non_blocking=True).float() - self.mean) / self.std

    def logits(self, images):
        with torch.autocast(self.device.type, torch.float16, enabled=self.mixed):
            output = (self.trained if self.module.training else self.module)(images)
        return output.float()

    def features(self, images):
        """What the last layer of a network of timm takes, float32 (batch, d)."""
        with torch.autocast(self.device.type, torch.float16, enabled=self.mixed):
            output = self.module.forward_head(self.module.forward_features(images), pre_logits=True)
        return output.float()

    def state(self) -> dict:
        """The tensors that training changes, by name: those of the last layer alone where no other is trained."""
        tensors = self.module.state_dict()
        if self.head is None:
            return tensors
        return {key: value for key, value in tensors.items() if key.startswith(f"{self.head_name}.")}

    @property
    def head_name(self) -> str:
        """The last layer's name among the modules, where it alone is trained."""
        return next(name for name, module in self.module.named_modules() if module is self.head)

    def load(self, weights: Mapping) -> None:
        """Take the tensors of :meth:`state`. Raises ValueError for those of another network."""
        if weights.keys() != self.state().keys():
            raise ValueError("the weights are those of another network; train the classifier again")
        self.module.load_state_dict(dict(weights), strict=False)

    def weights(self) -> dict:
        return {key: value.detach().cpu().contiguous().clone() for key, value in self.state().items()}

    def begin_training(self) -> None:
        """Layers that are not trained stay as they are in evaluation: their batch statistics too."""
        self.module.train()
        if self.head is not None:
            for module in self.module.modules():
                module.training = module in (self.module, self.head)

    def share(self, batch):
        """The part of a batch (or list of batches) that this process takes."""
        return batch[self.process :: self.processes]

    def step(self, pixels, target, size: int, optimizer, scaler, mix: Callable | None = None):
        """One step on this process's share of a batch of ``size`` images; returns the batch's summed loss (nats) and
        how many of its images were recognised, float64 (2,), on the device: reading them would wait for the step.

        ``target`` are labels, int64 (b,), or their weights in the loss, float (b, classes), of which an image counts as
        the heaviest; ``mix`` turns (images, target) into other images and weights.

        Raises RuntimeError when the GPU's memory does not suffice: half a batch has batch statistics of its own, and
        so other results.
        """
        try:
            loss, correct = self._update(pixels, target, size, optimizer, scaler, mix)
        except torch.OutOfMemoryError:
            raise RuntimeError(
                f"the GPU's memory does not suffice for the {len(pixels)} images of a batch; write a lower "
                "`classifier: {batch_size: ...}`, or let several GPUs share each batch, `classifier: {processes: ...}`"
            ) from None
        return collectives.total(torch.stack([loss.double(), correct.double()]))

    def _update(self, pixels, target, size: int, optimizer, scaler, mix: Callable | None) -> tuple:
        images = self.normalised(pixels)
        if mix:
            images, target = mix((images, target))
        logits = self.logits(images)
        loss = cross_entropy(logits, target, reduction="sum")
        optimizer.zero_grad()
        scaler.scale(loss * self.processes / size).backward()  # gradients are averaged over the processes
        scaler.step(optimizer)
        scaler.update()
        labels = target if target.ndim == 1 else target.argmax(1)
        return loss.detach(), (logits.argmax(1) == labels).sum()

    def predictions(self, data: Batches) -> Iterator[tuple[torch.Tensor, torch.Tensor, range]]:
        """Batch by batch, of this process's share of the images: predicted labels int64 (b,), their softmax
        probabilities float32 (b,), and the images' positions."""
        self.module.eval()
        if self.processes > 1:  # each has seen other images; as in training, the first one's statistics count
            for buffer in self.module.buffers():
                torch.distributed.broadcast(buffer, 0)
        mine = self.share(parts_of(range(len(data)), EVALUATION_BATCH))
        portions = Portions(EVALUATION_BATCH, "images to classify", "take a smaller `classifier: {image_size: ...}`")
        for where, pixels in zip(mine, self.read(data, mine), strict=True):
            with torch.inference_mode():
                scored = portions(lambda part: self.logits(self.normalised(part)).softmax(1).max(1), pixels)
                labels, shares = (torch.cat([each[place] for each in scored]) for place in (1, 0))
            yield labels, shares, where

    def read(self, data: Batches, parts: Sequence[range]) -> Iterator[torch.Tensor]:
        """The pixels of images at some positions, part by part, on the device. They are read in smaller batches, so
        that all readers have something to do from the beginning."""
        smaller = [parts_of(part, READ_BATCH) for part in parts]
        batches = data.stream([(0, part, part) for each in smaller for part in each])
        for each in smaller:
            yield torch.cat([next(batches).to(self.device, non_blocking=True) for _ in each])

    def predict(self, data: Batches):
        """Predicted labels int64 (n,) and their softmax probabilities float32 (n,), the same in every process. Raises
        RuntimeError naming an image that has none."""
        labels = torch.zeros(len(data), dtype=torch.int64, device=self.device)
        shares = torch.zeros(len(data), device=self.device)
        for label, share, where in self.predictions(data):
            labels[where.start : where.stop], shares[where.start : where.stop] = label, share
        labels, shares = collectives.total(labels).cpu(), collectives.total(shares).cpu()
        check_probabilities(shares, data, range(len(data)))
        return labels, shares


def _only_head(module, model: str) -> nn.Linear:
    """The last layer of a network, which is then all that is trained of it. Raises ValueError."""
    head = module.get_classifier()
    if not isinstance(head, nn.Linear):
        raise ValueError(f"the last layer of {model} is not a linear one: write `train: all`, or name another model")
    module.requires_grad_(False)
    head.requires_grad_(True)
    return head


def parts_of(positions: range, size: int) -> list[range]:
    """Positions in parts of at most ``size``."""
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def check_probabilities(shares, data: Batches, where: Sequence[int]) -> None:
    """Raise RuntimeError, naming an image, unless all images at some positions have probabilities (b,)."""
    bad = finite.bad_items(shares)
    names = [f"the image {data.rows[where[place]].image_id}" for place in bad]
    finite.check(shares[bad], "the classifier", names, LOWER)
