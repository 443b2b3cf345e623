"""Three colours to tell apart: pictures that a small classifier learns in a few epochs."""

import os
import signal

import numpy as np
import pytest
from PIL import Image

from augbench import images
from augbench.study.architectures import library_of
from augbench.study.sections.classifier import Classifier

CLASSES = ["red", "green", "blue"]
SEED = 3
SETTINGS = Classifier(model="small_cnn", image_size=16, batch_size=8, learning_rate=0.05, max_epochs=6)


def with_settings(**changes) -> Classifier:
    return SETTINGS.model_copy(update=changes)


def untrained(name: str, classes: int):
    """A network that maps pixels to logits, its weights drawn from torch's generator."""
    return library_of(name).build(name, classes, None, False)[0]


def tinted(folder, name, count, side=16, noise=90):
    """An image table of noise with one channel raised: learnt in a few epochs, but not at once."""
    folder = folder / name
    folder.mkdir()
    random = np.random.default_rng([count, side, noise])
    rows = []
    for i in range(count):
        key = i % len(CLASSES)
        pixels = random.normal(110, noise, (side, side + i % 5, 3))
        pixels[..., key] += 40
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        rows.append({"image_id": f"{name}-{i}", "class": CLASSES[key], "path": str(folder / f"{i}.png")})
    return images.table(rows)


def ended(sets, folder, step, settings=SETTINGS, seed=SEED, **further):
    """A run that SIGTERM ends at its ``step``-th training step, as a scheduler ends a job."""
    from augbench.classifier import networks, training

    steps = []
    original = networks.Network.step

    def counted(*arguments):
        steps.append(0)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(networks.Network, "step", counted)
        training.train(*sets, CLASSES, folder, settings, seed=seed, **further)
    assert end.value.code == 143
