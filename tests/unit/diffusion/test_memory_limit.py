"""What a fine-tuning does when a GPU's memory runs out."""

from types import SimpleNamespace

import pytest
import torch

from augbench.diffusion import memory_limit
from augbench.diffusion.memory_limit import MemoryLimit
from augbench.study.sections.diffusion import Finetune

CARD = torch.device("cuda")


class Unet:
    def enable_gradient_checkpointing(self):
        self.is_checkpointed = True

    def disable_gradient_checkpointing(self):
        self.is_checkpointed = False


def limit(fits, **changes):
    """A limit, and a computation that fits the memory where ``fits(images, is_checkpointed)``; both note what was
    tried."""
    settings = Finetune.model_validate({"images_at_a_time": 16, "gradient_checkpointing": "auto"} | changes)
    unet, tried = Unet(), []
    memory = MemoryLimit(unet, settings, settings.batch_size, CARD)

    def compute():
        tried.append((memory.images, unet.is_checkpointed))
        if not fits(*tried[-1]):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    return SimpleNamespace(memory=memory, compute=compute, tried=tried, unet=unet)


def test_what_fits_is_computed_once():
    case = limit(lambda images, is_checkpointed: True)
    assert case.memory.within(case.compute) == "done"
    assert case.tried == [(16, False)]


def test_first_fewer_images_then_activations_are_not_kept_then_fewer_again(capsys):
    case = limit(lambda images, is_checkpointed: is_checkpointed and images <= 4)
    assert case.memory.within(case.compute) == "done"
    wanted = [(16, False), (8, False), (4, False), (16, True), (8, True), (4, True)]
    assert case.tried == wanted
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "the GPU's memory does not suffice for 16 images at a time: going on with 8, without gradient checkpointing"
    )
    assert lines[2].endswith("for 4 images at a time: going on with 16, with gradient checkpointing")
    assert case.memory.within(case.compute) == "done"  # and stays so
    assert case.tried == [*wanted, (4, True)]


def test_it_starts_from_the_images_that_there_are():
    case = limit(lambda images, is_checkpointed: images <= 2, batch_size=6, gradient_checkpointing=False)
    case.memory.within(case.compute)
    assert case.tried == [(16, False), (3, False), (1, False)]


@pytest.mark.parametrize("wanted", [True, False])
def test_what_the_configuration_says_of_checkpointing_stays(wanted):
    case = limit(lambda images, is_checkpointed: images == 1, gradient_checkpointing=wanted)
    case.memory.within(case.compute)
    assert [images for images, _ in case.tried] == [16, 8, 4, 2, 1]
    assert {is_checkpointed for _, is_checkpointed in case.tried} == {wanted}


def test_a_card_that_is_too_small_is_said_to_be(monkeypatch):
    case = limit(lambda images, is_checkpointed: False)
    properties = SimpleNamespace(name="Tesla T4", total_memory=15 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    with pytest.raises(
        RuntimeError,
        match=r"^the memory of the Tesla T4 \(15 GiB\) does not suffice .* {images_at_a_time: 1",
    ):
        case.memory.within(case.compute)
    assert case.tried[-1] == (1, True)
    with pytest.raises(RuntimeError, match=r"docs/limits.md"), memory_limit.explained():
        raise torch.OutOfMemoryError


def test_at_one_image_the_key_that_helps_is_named():
    case = limit(lambda images, is_checkpointed: False, gradient_checkpointing=False)
    with pytest.raises(RuntimeError, match=r"does not suffice for one image: set .*gradient_checkpointing: auto"):
        case.memory.within(case.compute)


def test_a_state_goes_on_with_what_fitted():
    case = limit(lambda images, is_checkpointed: is_checkpointed and images <= 8)
    case.memory.within(case.compute)
    other = limit(lambda images, is_checkpointed: True)
    other.memory.restore(case.memory.state())
    assert (other.memory.images, other.unet.is_checkpointed) == (8, True)


def test_on_the_cpu_nothing_is_kept_that_can_be_computed_again():
    unet = Unet()
    assert MemoryLimit(unet, Finetune(), 64, torch.device("cpu")).is_checkpointed
    assert unet.is_checkpointed
    assert not MemoryLimit(unet, Finetune(gradient_checkpointing=False), 64, torch.device("cpu")).is_checkpointed
