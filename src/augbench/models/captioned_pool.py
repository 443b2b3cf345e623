"""A captioned pool in memory, the training input of the small CLIP and the small diffusion model."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from augbench import images
from augbench.core import texts
from augbench.core.files import BadInput
from augbench.images import decode, parquet_images, picture_in
from augbench.images.shards import Member
from augbench.study.sources import COLUMNS, PROVENANCE, spellings


def samples(shard: str | Path, columns: Mapping[str, str] | None = None) -> Iterator[tuple[str, dict[str, Member]]]:
    """The samples of a WebDataset shard, or of a Parquet file of images, see :func:`augbench.images.shards.samples`;
    ``columns`` as in the section ``pool``."""
    if parquet_images.is_one(shard):
        return parquet_images.samples(shard, spellings(columns or {}) | PROVENANCE)
    return images.samples(shard)


def facts(sample: Mapping[str, bytes]) -> dict:
    """What the JSON of a shard's sample says: text, numbers and booleans by name, of several captions the first, other
    values as JSON; nothing where it is no JSON or no object."""
    try:
        values = json.loads(texts.decode(sample.get("json", b"{}")))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    for name in values.keys() & set(COLUMNS["caption"]):
        if isinstance(values[name], list):
            values[name] = next((text for text in values[name] if isinstance(text, str) and text), None)
    plain = (str, int, float, type(None))
    # Half a surrogate pair can be written in JSON, but in no file.
    values = {name: value if isinstance(value, plain) else json.dumps(value) for name, value in values.items()}
    return {_text(name): _text(value) if isinstance(value, str) else value for name, value in values.items()}


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


def caption(sample: Mapping[str, bytes], described: Mapping) -> str | None:
    """The caption of a shard's sample: its ``txt``, else what its JSON (``described``) calls caption or text, by any of
    the names that columns have."""
    if "txt" in sample:
        return texts.decode(sample["txt"])
    return next((described[name] for name in COLUMNS["caption"] if isinstance(described.get(name), str)), None)


class CaptionedPool:
    """Images and captions of WebDataset shards, or of Parquet files of images.

    ``pixels`` is a uint8 tensor (n, 3, size, size), RGB, centre-cropped and resized; ``captions`` a list
    of n strings. Samples without an image that can be read or a caption are left out.
    """

    def __init__(self, shards: Sequence[str | Path], size: int):
        import numpy as np
        import torch
        from PIL import ImageOps

        pixels, self.captions = [], []
        for shard in shards:
            for key, members in samples(shard):
                sample = {extension: member.data for extension, member in members.items()}
                kind, words = picture_in(sample), caption(sample, facts(sample))
                if kind is None or words is None:
                    continue
                try:
                    picture = decode(sample[kind], f"{key} in {shard}")
                except ValueError as error:
                    print(f"left out: {error}", flush=True)
                    continue
                pixels.append(np.asarray(ImageOps.fit(picture, (size, size))))
                self.captions.append(words)
        if not pixels:
            raise BadInput(f"no captioned image in {', '.join(map(str, shards))}")
        self.pixels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def normalised(pixels):
    """uint8 0..255 -> float32 -1..1, as the small models see pixels."""
    return pixels.float().div(127.5).sub(1)


def best_device() -> str:
    """Where a small model is trained: on the GPU, where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
