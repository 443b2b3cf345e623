"""CLIP as clip-retrieval loads it: texts and pictures as vectors in one space."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import finite, prefetch

BATCH = 64  # pictures
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a folder, as transformers looks for them


class Clip:
    """A CLIP that clip-retrieval knows by name, e.g. ``ViT-L/14`` or ``hf_clip:FOLDER``."""

    def __init__(self, model: str):
        import torch
        from all_clip import load_clip

        read_folders()
        emulate_no_bfloat16()
        place = model.partition("hf_clip:")[2]
        #: What its embeddings depend on.
        self.identity = [model, *_state_of(place)]
        self.name = model
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.prepare, self.tokenize = load_clip(
            model, use_jit=False, device=self.device, warmup_batch_size=1
        )

    @functools.cached_property
    def sha256(self) -> str | None:
        """Of the file of its weights: of a folder's, or of OpenAI's archive, by which its download is checked; None
        where it is not known."""
        _, is_folder, folder = self.name.partition("hf_clip:")
        if is_folder:
            file = next((Path(folder, name) for name in WEIGHTS if Path(folder, name).is_file()), None)
            return hashlib.sha256(file.read_bytes()).hexdigest() if file else None
        from clip import clip as published

        address = published._MODELS.get(self.name.removeprefix("openai_clip:"))
        return address.split("/")[-2] if address else None

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by to make logits, as it learned; where it names none 100, CLIP's upper bound."""
        learned = [value for name, value in self.model.named_parameters() if name.endswith("logit_scale")]
        return learned[0].float().exp().item() if learned else 100.0

    def texts(self, texts: Sequence[str]):
        """Embeddings of texts, float32 (n, width), each of length 1."""
        # One at a time, as clip-retrieval does: the same low bits.
        vectors = self._embed(self.model.encode_text, ([text] for text in texts), self.tokenize)
        finite.check(vectors, f"the CLIP {self.name}", [f"the text {text!r}" for text in texts])
        return vectors

    def pictures(self, pictures: Sequence):
        """Embeddings of RGB ``PIL.Image`` as one batch, float32 (n, width), each of length 1."""
        import torch

        def batch(pictures):
            return torch.stack([self.prepare(picture) for picture in pictures])

        return self._embed(self.model.encode_image, [pictures], batch)

    def _embed(self, encode, batches, prepare):
        import numpy as np
        import torch

        parts = []
        with torch.inference_mode():
            for batch in batches:
                vectors = encode(prepare(batch).to(self.device)).float()  # a length in half precision is off by 0.4%
                parts.append((vectors / vectors.norm(dim=-1, keepdim=True)).cpu().numpy())
        return np.concatenate(parts)


def read_folders() -> None:
    """Have clip-retrieval, in this process, read transformers' CLIP folders (``hf_clip:FOLDER``).

    Its all_clip takes what ``get_text_features`` and ``get_image_features`` return for tensors; since transformers 5
    they are objects that hold one.
    """
    from all_clip import hf_clip, main

    def load(*settings):
        model, prepare, tokenize = hf_clip.load_hf_clip(*settings)
        for name in ("get_text_features", "get_image_features"):
            setattr(model.inner_model, name, _pooled(getattr(model.inner_model, name)))
        return model, prepare, tokenize

    main._CLIP_REGISTRY["hf_clip:"] = load


def _pooled(features: Callable) -> Callable:
    return lambda inputs: features(inputs).pooler_output


def emulate_no_bfloat16() -> None:
    """Have clip-retrieval, in this process, load CLIPs in float16 where the GPU only emulates bfloat16 (V100, T4).

    Its all_clip asks torch for bfloat16, which counts an emulated one unless told not to.
    """
    import torch
    from all_clip import main

    if not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False):
        return

    def in_float16(load: Callable) -> Callable:
        def load_in_float16(*settings):
            model, *rest = load(*settings)
            if getattr(model, "dtype", None) == torch.bfloat16:
                model.dtype = torch.float16
            return model, *rest

        return load_in_float16

    main._CLIP_REGISTRY.update({prefix: in_float16(load) for prefix, load in main._CLIP_REGISTRY.items()})


def _state_of(folder: str) -> list:
    """Name, size and time of the files of a CLIP's folder; none of what is not here."""
    if not folder or not Path(folder).is_dir():
        return []
    files = sorted(file for file in Path(folder).iterdir() if file.is_file() and not file.name.startswith("."))
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def embed(table: pd.DataFrame, embedder: Callable[[list], object], progress: Callable):
    """Embeddings of a table's images, float32 (n, width), as ``embedder`` gives them for a list of pictures, e.g.
    :meth:`Clip.pictures`. Raises RuntimeError naming an image of which it makes no numbers."""
    import numpy as np

    rows = images.References(table)
    order = rows.reading_order()

    def pictures_from(start: int) -> list:
        return [images.load(rows[place]) for place in order[start : start + BATCH]]

    parts, done = [], 0
    for pictures in prefetch.ahead(pictures_from, range(0, len(table), BATCH)):
        parts.append(embedder(pictures))
        done += len(pictures)
        progress(done, len(table), "images embedded")
    embedded = np.concatenate(parts)
    vectors = np.empty_like(embedded)
    vectors[order] = embedded
    finite.check(vectors, "the embedding model", [images.name_of(row) for row in table.itertuples()])
    return vectors
