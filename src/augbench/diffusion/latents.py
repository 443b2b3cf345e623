"""VAE posteriors of the target's images, encoded once: every fine-tuning and Boomerang start from them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from augbench import images
from augbench.core import finite
from augbench.core.files import whole
from augbench.models.backbones import load_pipeline
from augbench.study import classes

BATCH = 16  # images that the VAE encodes at a time


def encode(
    pipeline_folder: str | Path,
    files: Mapping[str | Path, str | Path],
    *,
    image_size: int,
    mirrored: bool,
    threads: int,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Encode the images of image tables; ``files`` maps each table's path to that of its latents (safetensors).

    ``parameters`` (n, 2 x channels, height, width) are mean and log-variance of the posterior, in the order
    of the table, images cropped to their central square; ``mirrored`` those of the mirrored images, where
    asked for; ``image_ids`` a JSON list, as bytes. float32, or float16 from a GPU. Raises ValueError naming an
    unreadable image.
    """
    import torch

    torch.set_num_threads(threads)
    vae = load_pipeline(pipeline_folder).vae
    tables = {path: images.read(table) for table, path in files.items()}
    total, done = sum(map(len, tables.values())), 0
    for path, table in tables.items():
        parts = {"parameters": [], "mirrored": []}
        for start in range(0, len(table), BATCH):
            rows = list(table.iloc[start : start + BATCH].itertuples())
            names = list(map(images.name_of, rows))
            squares = [_square(images.load(row), image_size) for row in rows]
            parts["parameters"].append(_posteriors(vae, squares, names))
            if mirrored:
                parts["mirrored"].append(_posteriors(vae, [square[:, ::-1] for square in squares], names))
            done += len(rows)
            progress(done, total, "images")
        write(path, table["image_id"], {name: torch.cat(each) for name, each in parts.items() if each})


def _square(picture, image_size: int):
    """The central square of a picture, uint8 (image_size, image_size, 3)."""
    import numpy as np
    from PIL import ImageOps

    return np.asarray(ImageOps.fit(picture, (image_size, image_size)))


def _posteriors(vae, squares: Sequence, names: Sequence[str]):
    """The parameters of the posteriors of pictures, (n, 2 x channels, height, width), on the CPU."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    with torch.inference_mode():
        parameters = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.parameters.cpu()
    finite.check(parameters, "the encoder (vae)", names, "its weights may be damaged")
    return parameters


def write(path: str | Path, image_ids: Sequence[str], posteriors: Mapping) -> None:
    """Write posteriors, one for each image, with the ids of their images."""
    import torch
    from safetensors.torch import save_file

    ids = torch.frombuffer(bytearray(json.dumps(list(image_ids)).encode()), dtype=torch.uint8)
    tensors = {name: value.contiguous() for name, value in posteriors.items()}
    with whole(path) as temporary:
        save_file(tensors | {"image_ids": ids}, temporary)


def read(path: str | Path, table: pd.DataFrame) -> dict:
    """The posteriors of a table's images, in its order: ``parameters`` and, where they were encoded, ``mirrored``.

    Raises ValueError when the file holds those of other images.
    """
    from safetensors.torch import load_file

    posteriors = load_file(path)
    ids = json.loads(bytes(posteriors.pop("image_ids").numpy())) if "image_ids" in posteriors else []
    if ids != list(table["image_id"]):
        raise ValueError(f"{path} holds latents of other images than the image table; remove it, and it is built again")
    return posteriors


class StartImages(NamedTuple):
    """Training images that generated ones begin from."""

    image_ids: list[str]
    positions: dict[str, list[int]]  # class -> those of its images among the latents
    latents: Any  # float32 (n, channels, height, width), scaled as the denoiser knows them


def start_images(path: str | Path, table: pd.DataFrame, scaling_factor: float) -> StartImages:
    """The images of a table as the means of their posteriors in the file ``path``."""
    means = read(path, table)["parameters"].float().chunk(2, dim=1)[0]
    return StartImages(list(table["image_id"]), classes.positions(table), means * scaling_factor)
