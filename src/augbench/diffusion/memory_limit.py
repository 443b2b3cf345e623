"""What a fine-tuning does where a GPU's memory does not suffice: fewer images at a time, and in the end less kept."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch

from augbench.core.gpu_memory import attempt
from augbench.study.sections.diffusion import Finetune

EFFICIENT = 4  # images of a forward pass that keep a GPU busy; rather than fewer, activations are computed twice


class MemoryLimit:
    """How many images a forward pass takes (``images``), and whether activations are computed again for the backward
    pass instead of kept (``is_checkpointed``); less of the GPU's memory from each time on that it did not suffice.

    ``share`` is the most images that this process has of a batch. With ``gradient_checkpointing: auto`` activations are
    kept for as long as they fit; on the CPU, where nothing says that they do not, they are not.
    """

    def __init__(self, unet, settings: Finetune, share: int, device: torch.device):
        self.unet, self.settings, self.share, self.device = unet, settings, share, device
        wanted = settings.gradient_checkpointing
        self.images = settings.images_at_a_time
        self._checkpoint(device.type == "cpu" if wanted == "auto" else wanted)

    def within(self, compute: Callable):
        """``compute()``, repeated with less while the memory does not suffice.

        Raises RuntimeError when it does not for a single image.
        """
        while True:
            result, is_done = attempt(compute)
            if is_done:
                return result
            self._lower()

    def state(self) -> dict:
        return {"images": self.images, "is_checkpointed": self.is_checkpointed}

    def restore(self, state: Mapping) -> None:
        self.images = state["images"]
        self._checkpoint(state["is_checkpointed"])

    def _checkpoint(self, wanted: bool) -> None:
        self.is_checkpointed = wanted
        if wanted:
            self.unet.enable_gradient_checkpointing()
        else:
            self.unet.disable_gradient_checkpointing()

    def _lower(self) -> None:
        torch.cuda.empty_cache()
        tried = min(self.images, self.share)
        may_checkpoint = self.settings.gradient_checkpointing == "auto" and not self.is_checkpointed
        if may_checkpoint and tried <= EFFICIENT:
            self._checkpoint(True)
            self.images = self.settings.images_at_a_time
        elif tried > 1:
            self.images = tried // 2
        elif self.is_checkpointed:
            raise RuntimeError(too_small())
        else:
            raise RuntimeError(f"{too_little_for('one image')}: set `finetune: {{gradient_checkpointing: auto}}`")
        kept = "with gradient checkpointing" if self.is_checkpointed else "without gradient checkpointing"
        now = min(self.images, self.share)
        print(
            f"the GPU's memory does not suffice for {tried} images at a time: going on with {now}, {kept}", flush=True
        )


def too_small() -> str:
    """A sentence for a GPU on which a method cannot be trained."""
    return (
        f"{too_little_for('this method')} even with `finetune: {{images_at_a_time: 1, gradient_checkpointing: true}}`; "
        "docs/limits.md says how much each kind of method needs"
    )


def too_little_for(what: str) -> str:
    card = "the GPU"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        card = f"the {properties.name} ({properties.total_memory / 2**30:.0f} GiB)"
    return f"the memory of {card} does not suffice for {what}"


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Where memory runs out in what cannot be done in parts, raise RuntimeError with :func:`too_small`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise RuntimeError(too_small()) from None
