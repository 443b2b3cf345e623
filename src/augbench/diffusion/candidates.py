"""What a fine-tuning leaves, as files: tensors by name, nothing but what was trained (:mod:`augbench.study.parts`)."""

from collections.abc import Mapping
from pathlib import Path

from augbench.core.files import whole


def save(path: str | Path, candidate: Mapping) -> None:
    """Write a candidate as safetensors."""
    from safetensors.torch import save_file

    with whole(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in candidate.items()}, temporary)


def load(path: str | Path) -> dict:
    from safetensors.torch import load_file

    return load_file(path)
