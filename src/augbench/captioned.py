"""A captioned pool in memory, the training input of the small CLIP and the small diffusion model."""

from collections.abc import Sequence
from pathlib import Path

from augbench.images import IMAGE_KEYS, decode, read_shard


class CaptionedPool:
    """Images and captions of WebDataset shards.

    ``pixels`` is a uint8 tensor (n, 3, size, size), RGB, centre-cropped and resized; ``captions`` a list
    of n strings. Samples without an image or a caption are left out.
    """

    def __init__(self, shards: Sequence[str | Path], size: int):
        import numpy as np
        import torch
        from PIL import ImageOps

        pixels, self.captions = [], []
        for shard in shards:
            for key, sample in read_shard(shard):
                data = next((sample[kind] for kind in IMAGE_KEYS if kind in sample), None)
                if data is None or "txt" not in sample:
                    continue
                pixels.append(np.asarray(ImageOps.fit(decode(data, f"{key} in {shard}"), (size, size))))
                self.captions.append(sample["txt"].decode("utf-8"))
        if not pixels:
            raise ValueError(f"no captioned image in {', '.join(map(str, shards))}")
        self.pixels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def normalised(pixels):
    """uint8 0..255 -> float32 -1..1, as the small models see pixels."""
    return pixels.float().div(127.5).sub(1)
