"""Aesthetic scores of pictures by a LAION head, for pools without scores of their own."""

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from augbench.core import finite


def scorer(path: str | Path) -> Callable:
    """What scores CLIP image embeddings (n, width; any length), from 1 to 10, float (n,).

    ``path`` is one of LAION's heads, the linear or the one with several layers, or another of their kind: linear
    layers, one after the other, on embeddings of unit length (dropout is for their training alone). A
    ``.safetensors`` file, or a ``.pth`` of tensors; a pickle of anything else is refused.

    Raises ValueError when the file holds something else, or embeddings have another width.
    """
    layers = _layers(_read(path), path)

    def score(vectors):
        import torch

        values = torch.as_tensor(vectors, dtype=torch.float32)
        if values.shape[1] != layers[0][0].shape[1]:
            raise ValueError(
                f"{path} scores embeddings of width {layers[0][0].shape[1]}, those of the study's CLIP have "
                f"{values.shape[1]}: it belongs to another CLIP"
            )
        values = torch.nn.functional.normalize(values)
        for weight, bias in layers:
            values = torch.nn.functional.linear(values, weight, bias)
        finite.check(values, f"the aesthetic head {path}", [f"neighbour {i + 1}" for i in range(len(values))])
        return values[:, 0].double().numpy()

    return score


def of_pictures(path: str | Path, clip) -> Callable[[list], Sequence[float]]:
    """What scores RGB ``PIL.Image``, float (n,), by a head and its CLIP (:class:`augbench.models.clip.Clip`).

    Not by an index's own vectors: a large index holds them compressed, and their scores fall on the other side of a
    threshold for one image in ten and more.
    """
    score = scorer(path)
    return lambda pictures: score(clip.pictures(pictures))


def _read(path: str | Path) -> dict:
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)  # the unpickler that knows tensors only


def _layers(tensors: dict, path) -> list[tuple]:
    """Weight and bias of each linear layer, in their order."""
    names = [name for name, value in tensors.items() if name.endswith("weight") and value.ndim == 2]
    names.sort(key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    layers = [(tensors[name].float(), tensors[f"{name.removesuffix('weight')}bias"].float()) for name in names]
    widths = [(weight.shape[1], weight.shape[0]) for weight, _ in layers]
    if len(tensors) != 2 * len(layers) or not layers or widths[-1][1] != 1:
        raise ValueError(f"{path} is not an aesthetic head: linear layers with weight and bias, down to one number")
    if any(one[1] != two[0] for one, two in itertools.pairwise(widths)):
        raise ValueError(f"{path} is not an aesthetic head: its layers do not fit together ({widths})")
    return layers
