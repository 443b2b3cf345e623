"""The classifiers that can be trained, by name; known without importing them."""

import difflib
import functools
import re

from augbench.core.package_data import package_folder

SMALL = "small_cnn"


@functools.cache
def known_models() -> list[str]:
    """``small_cnn`` and torchvision's classification models, without the seconds that importing it takes."""
    folder = package_folder("torchvision") / "models"
    registered = re.compile(r"^@register_model\(\).*?^def (\w+)\(", re.MULTILINE | re.DOTALL)
    names = {name for file in folder.glob("*.py") for name in registered.findall(file.read_text("utf-8"))}
    return [SMALL, *sorted(names)]


def check_model(name: str) -> None:
    """Raise ValueError, naming the nearest known names, unless ``name`` is a known classifier."""
    if name not in known_models():
        near = difflib.get_close_matches(str(name).lower(), known_models(), n=3, cutoff=0.4)
        names = " or ".join(map(repr, near or [SMALL, "resnet50"]))
        raise ValueError(f"unknown classifier {name!r}; did you mean {names}?")
