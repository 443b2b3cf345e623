"""VAE posteriors of the target's images, encoded once: every fine-tuning and Boomerang start from them."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import finite
from augbench.core.files import whole
from augbench.models.backbones import load_pipeline


def encode(
    pipeline_folder: str | Path,
    tables: dict[str | Path, pd.DataFrame],
    *,
    image_size: int,
    mirrored: bool,
    threads: int,
    batch_size: int = 16,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Encode the images of each table and write them to its path (safetensors).

    ``parameters`` (n, 2 x channels, height, width) are mean and log-variance of the posterior, in the order
    of the table, images cropped to their central square; ``mirrored`` those of the mirrored images, where
    asked for. float32, or float16 from a GPU. Raises ValueError naming an unreadable image.
    """
    import numpy as np
    import torch
    from PIL import ImageOps
    from safetensors.torch import save_file

    torch.set_num_threads(threads)
    vae = load_pipeline(pipeline_folder).vae

    def posterior(pictures, names):
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        with torch.inference_mode():
            found = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.parameters.cpu()
        finite.check(found, "the encoder (vae)", names, "its weights may be damaged")
        return found

    total, done = sum(map(len, tables.values())), 0
    for path, table in tables.items():
        found = {"parameters": [], "mirrored": []}
        for start in range(0, len(table), batch_size):
            rows = list(table.iloc[start : start + batch_size].itertuples())
            names = list(map(images.name_of, rows))
            pictures = [np.asarray(ImageOps.fit(images.load(row), (image_size, image_size))) for row in rows]
            found["parameters"].append(posterior(pictures, names))
            if mirrored:
                found["mirrored"].append(posterior([picture[:, ::-1] for picture in pictures], names))
            done += len(pictures)
            progress(done, total, "images")
        with whole(path) as temporary:
            save_file({name: torch.cat(parts).contiguous() for name, parts in found.items() if parts}, temporary)
