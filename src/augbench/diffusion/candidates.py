"""What a fine-tuning leaves, as files: tensors by name, nothing but what was trained (:mod:`augbench.study.parts`)."""

from collections.abc import Collection, Mapping
from pathlib import Path

from augbench.core import tensor_file
from augbench.core.files import whole


def save(path: str | Path, candidate: Mapping, floats=None) -> None:
    """Write a candidate as safetensors, floating-point numbers in the type ``floats`` or as they are."""
    with whole(path) as temporary:
        tensor_file.write(temporary, candidate, floats=floats)


def load(path: str | Path, classes: Collection[str] | None = None) -> dict:
    """A candidate; of one that has something for each class, named ``CLASS/NAME``, what it has for these."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if classes is None or name.rpartition("/")[0] in classes]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in names}


def of_class(candidate: Mapping, key: str) -> dict:
    """What a candidate holds for a class, by the names of a candidate for all."""
    named = ((*name.rpartition("/"), value) for name, value in candidate.items())
    return {name: value for own, _, name, value in named if own == key}


def history_file(folder: Path) -> Path:
    """The losses of a fine-tuning, epoch by epoch; they stay when the folder of its candidates goes."""
    return folder.with_name(f"{folder.name}.csv")
