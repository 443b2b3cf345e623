"""What a fine-tuning leaves, as files: tensors by name, nothing but what was trained (:mod:`augbench.study.parts`)."""

from collections.abc import Mapping
from pathlib import Path

from augbench.core import tensor_file
from augbench.core.files import whole


def save(path: str | Path, candidate: Mapping, floats=None) -> None:
    """Write a candidate as safetensors, floating-point numbers in the type ``floats`` or as they are."""
    with whole(path) as temporary:
        tensor_file.write(temporary, candidate, floats=floats)


def load(path: str | Path) -> dict:
    from safetensors.torch import load_file

    return load_file(path)


def history_file(folder: Path) -> Path:
    """The losses of a fine-tuning, epoch by epoch; they stay when the folder of its candidates goes."""
    return folder.with_name(f"{folder.name}.csv")
