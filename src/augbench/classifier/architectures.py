"""The classifiers that can be trained, by name; known without importing them."""

import difflib
import functools
import re

from augbench.core.package_data import package_folder

SMALL = "small_cnn"
SMALL_PARAMETERS = 100_000  # of small_cnn, about


@functools.cache
def known_models() -> list[str]:
    """``small_cnn`` and torchvision's classification models, without the seconds that importing it takes."""
    registered = re.compile(r"^@register_model\(\).*?^def (\w+)\(", re.MULTILINE | re.DOTALL)
    names = {name for text in _sources() for name in registered.findall(text)}
    return [SMALL, *sorted(names)]


@functools.cache
def parameters_of(name: str) -> int:
    """The numbers in a known classifier's weights, as torchvision's sources say of ImageNet's classes."""
    stated = re.compile(r"^class (\w+)_Weights\(.*?\"num_params\": (\d+)", re.MULTILINE | re.DOTALL)
    counts = {weights.lower(): int(count) for text in _sources() for weights, count in stated.findall(text)}
    return counts.get(name, SMALL_PARAMETERS)


def _sources() -> list[str]:
    folder = package_folder("torchvision") / "models"
    return [file.read_text("utf-8") for file in folder.glob("*.py")]


def check_model(name: str) -> None:
    """Raise ValueError, naming the nearest known names, unless ``name`` is a known classifier."""
    if name not in known_models():
        near = difflib.get_close_matches(str(name).lower(), known_models(), n=3, cutoff=0.4)
        names = " or ".join(map(repr, near or [SMALL, "resnet50"]))
        raise ValueError(f"unknown classifier {name!r}; did you mean {names}?")
