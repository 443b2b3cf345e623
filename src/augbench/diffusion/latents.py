"""VAE posteriors of the target's images, encoded once: every fine-tuning and Boomerang start from them."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from augbench import images
from augbench.core import finite, prefetch, resume, tensor_file
from augbench.core.files import flush, read_json, whole, write_json
from augbench.core.gpu_memory import Portions
from augbench.models import families
from augbench.models.backbones import in_enough_precision, load_vae
from augbench.study import classes

BATCH = 16  # images that the VAE encodes at a time
SAVED = 625 * BATCH  # images between the states that a killed job goes on from
SMALLER = "write a smaller `generate: {image_size: ...}`, or take a GPU with more memory"


def encode(
    pipeline_folder: str | Path,
    files: Mapping[str | Path, str | Path],
    *,
    image_size: int | None,
    mirrored: bool,
    threads: int,
    at_most: Mapping[str | Path, int] | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Encode the images of image tables; ``files`` maps each table's path to that of its latents (safetensors).

    ``parameters`` (n, 2 x channels, height, width) are mean and log-variance of the posterior, in the order
    of the table, images cropped to their central square, of ``image_size`` pixels or the pipeline's own; ``mirrored``
    those of the mirrored images, where asked for; ``image_ids`` a JSON list, as bytes. float32, or float16 from a GPU.
    Of a table in ``at_most`` only so many images are encoded, those of :func:`sample`.

    All is written as it is encoded; a killed job goes on from its last state, beside the latents, and ends with the
    same bytes. Raises ValueError naming an unreadable image.
    """
    import torch

    torch.set_num_threads(threads)
    image_size = image_size or families.of_folder(pipeline_folder).size_of(Path(pipeline_folder))
    tables = {path: images.read(table) for table, path in files.items()}
    tables |= {files[table]: sample(tables[files[table]], limit) for table, limit in (at_most or {}).items()}
    facts, vae_folder = [image_size, mirrored, threads], Path(pipeline_folder, "vae")
    unfinished = {path: _Unfinished(path, table, facts, vae_folder) for path, table in tables.items()}
    vae = load_vae(pipeline_folder)
    at_a_time = Portions(BATCH, "images to encode", SMALLER)
    total, done = sum(map(len, tables.values())), sum(latents.done for latents in unfinished.values())
    for path, table in tables.items():
        batches = [table.iloc[start : start + BATCH] for start in range(unfinished[path].done, len(table), BATCH)]
        for squares, names in prefetch.ahead(lambda rows: _squares(rows, image_size), batches):
            encoded = {"parameters": _posteriors(vae, squares, names, at_a_time)}
            if mirrored:
                encoded["mirrored"] = _posteriors(vae, [square[:, ::-1] for square in squares], names, at_a_time)
            unfinished[path].append(encoded)
            done += len(squares)
            progress(done, total, "images")
    for latents in unfinished.values():  # all or none: a job that fails loses those of its outputs that were there
        latents.finish()


def sample(table: pd.DataFrame, at_most: int) -> pd.DataFrame:
    """At most so many of a table's images, evenly from all of it: those of a fine-tuning's validation loss."""
    return table.iloc[:: max(1, math.ceil(len(table) / at_most))].reset_index(drop=True)


def _squares(table: pd.DataFrame, image_size: int) -> tuple[list, list[str]]:
    """The central squares of a table's images, uint8 (image_size, image_size, 3), and what to call the images."""
    import numpy as np
    from PIL import ImageOps

    rows = list(table.itertuples())
    squares = [np.asarray(ImageOps.fit(images.load(row), (image_size, image_size))) for row in rows]
    return squares, list(map(images.name_of, rows))


def _posteriors(vae, squares: Sequence, names: Sequence[str], at_a_time: Portions):
    """The parameters of the posteriors of pictures, (n, 2 x channels, height, width), on the CPU."""
    import numpy as np
    import torch

    def parameters_of(pixels):
        return vae.encode(pixels).latent_dist.parameters

    def compute(part):
        pixels = part.to(vae.device).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return in_enough_precision(vae, parameters_of, pixels.to(vae.dtype)).cpu()

    with torch.inference_mode():
        parameters = torch.cat(at_a_time(compute, torch.from_numpy(np.stack(squares))))
    finite.check(parameters, "the encoder (vae)", names, "its weights may be damaged")
    return parameters


class _Unfinished:
    """A file of latents that is being written, under a hidden name beside its own, with a note of how far it is."""

    def __init__(self, path: str | Path, table: pd.DataFrame, facts: list, vae_folder: Path):
        self.path, self.count = Path(path), len(table)
        self.ids = _as_bytes(table["image_id"])
        self.data = self.path.with_name(f".{self.path.name}.unfinished")
        self.note = self.data.with_suffix(".json")
        references = table[["image_id", "path", "offset", "length"]].astype(str).to_numpy().tolist()
        sources = [vae_folder, *dict.fromkeys(table["path"])]
        self.identity = resume.identity(__name__, [*facts, references], sources)
        state = read_json(self.note) if self.note.exists() and self.data.exists() else {}
        self.done = state["done"] if state.get("identity") == self.identity else 0
        if self.done:
            print(f"{self.path.name}: going on after {self.done} of {self.count} images", flush=True)

    def append(self, tensors: Mapping) -> None:
        """Write the posteriors of the next images."""
        import torch

        layout = {name: (value.dtype, (self.count, *value.shape[1:])) for name, value in tensors.items()}
        head, places = tensor_file.head(layout | {"image_ids": (torch.uint8, (len(self.ids),))})
        if not self.done:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.data, "wb") as file:
                file.write(head)
                file.seek(places["image_ids"])
                file.write(self.ids)
        with open(self.data, "r+b") as file:
            for name, value in tensors.items():
                file.seek(places[name] + self.done * value[0].nbytes)
                file.write(value.contiguous().numpy().tobytes())
        self.done += len(value)
        if self.done % SAVED == 0 or self.done == self.count:
            self._save()

    def _save(self) -> None:
        flush(self.data)
        write_json(self.note, {"identity": self.identity, "done": self.done})

    def finish(self) -> None:
        with whole(self.path) as temporary:
            self.data.rename(temporary)
        self.note.unlink(missing_ok=True)


def _as_bytes(image_ids: Sequence[str]) -> bytes:
    return json.dumps(list(image_ids)).encode()


def write(path: str | Path, image_ids: Sequence[str], posteriors: Mapping) -> None:
    """Write posteriors, one for each image, with the ids of their images."""
    import torch
    from safetensors.torch import save_file

    ids = torch.frombuffer(bytearray(_as_bytes(image_ids)), dtype=torch.uint8)
    tensors = {name: value.contiguous() for name, value in posteriors.items()}
    with whole(path) as temporary:
        save_file(tensors | {"image_ids": ids}, temporary)


def read(path: str | Path, table: pd.DataFrame) -> dict:
    """The posteriors of a table's images, in its order: ``parameters`` and, where they were encoded, ``mirrored``.

    The file is mapped: what is not looked at takes no memory. Raises ValueError when it holds those of other images.
    """
    from safetensors.torch import load_file

    posteriors = load_file(path)
    ids = json.loads(bytes(posteriors.pop("image_ids").numpy())) if "image_ids" in posteriors else []
    if ids != list(table["image_id"]):
        raise ValueError(f"{path} holds latents of other images than the image table; remove it, and it is built again")
    return posteriors


class Means:
    """The means of posteriors as the denoiser knows them: ``means[positions]``, float32 (n, channels, height, width).

    ``parameters`` (all images, 2 x channels, height, width) stay as they are stored: only what is asked for is
    computed.
    """

    def __init__(self, parameters, scaling_factor: float):
        self.parameters, self.scaling_factor = parameters, scaling_factor

    def __getitem__(self, positions: Sequence[int]):
        return self.parameters[list(positions)].float().chunk(2, dim=1)[0] * self.scaling_factor


class StartImages(NamedTuple):
    """Training images that generated ones begin from."""

    image_ids: list[str]
    positions: dict[str, list[int]]  # class -> those of its images among the latents
    latents: Means


def start_images(path: str | Path, table: pd.DataFrame, scaling_factor: float) -> StartImages:
    """The images of a table as the means of their posteriors in the file ``path``."""
    parameters = read(path, table)["parameters"]
    return StartImages(list(table["image_id"]), classes.positions(table), Means(parameters, scaling_factor))
