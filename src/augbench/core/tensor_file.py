"""Writes safetensors files one tensor after the other, so that no second copy of all of them is ever in memory."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

# The names of types in the format, in the order in which safetensors itself writes them.
TYPES = ["U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "I8", "U8", "BOOL"]


def write(path: str | Path, tensors: Mapping, metadata: Mapping[str, str] | None = None, floats=None) -> None:
    """Write named tensors, wherever they are and however they lie in memory, as safetensors.

    Each is copied to the CPU, and made contiguous, when its turn comes; those of a floating-point type are converted to
    the type ``floats`` then. The bytes are those of ``safetensors.torch.save_file``.
    """
    types = {name: _stored(tensor.dtype, floats) for name, tensor in tensors.items()}
    start, places = head({name: (types[name], tensor.shape) for name, tensor in tensors.items()}, metadata)
    with open(path, "wb") as file:
        file.write(start)
        for name in places:
            file.write(_bytes(tensors[name], types[name]))


def head(tensors: Mapping[str, tuple], metadata: Mapping[str, str] | None = None) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a file of tensors, of each its type and its shape, and where in the file each begins, in
    their order there."""
    order = sorted(tensors, key=lambda name: (TYPES.index(_name(tensors[name][0])), name))
    header: dict = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        dtype, shape = tensors[name]
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _name(dtype), "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = struct.pack("<Q", len(text)) + text
    return start, {name: len(start) + header[name]["data_offsets"][0] for name in order}


def _stored(dtype, floats):
    return floats if floats is not None and dtype.is_floating_point else dtype


def _name(dtype) -> str:
    """The format's name of a type, e.g. F32 of torch.float32."""
    name = str(dtype).removeprefix("torch.")
    known = {"bfloat16": "BF16", "bool": "BOOL"}
    return known.get(name) or name.replace("uint", "U").replace("int", "I").replace("float", "F")


def _bytes(tensor, dtype) -> memoryview:
    import torch

    return memoryview(tensor.detach().cpu().to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy())
