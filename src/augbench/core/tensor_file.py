"""Writes safetensors files one tensor after the other, so that no second copy of all of them is ever in memory."""

import json
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
    order = sorted(tensors, key=lambda name: (TYPES.index(_name(types[name])), name))
    header: dict = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].numel() * types[name].itemsize
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _name(types[name]), "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(_bytes(tensors[name], types[name]))


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
