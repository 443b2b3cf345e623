"""How CLIP is asked on a GPU: in the half precision that the GPU has, and for lengths that are one."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from augbench.models import clip


class Encoder:
    """Gives embeddings in the precision that it computes in, as all_clip's wrappers do."""

    def __init__(self, dtype):
        self.dtype = dtype

    def encode_image(self, pixels):
        return (pixels @ torch.linspace(-1, 1, 300).view(3, 100)).to(self.dtype)


def loaded(monkeypatch, dtype, gpu_has_bfloat16):
    """A CLIP that all_clip loads in this precision, on a GPU but for the tensors' place."""

    def load(*_):
        return Encoder(dtype), lambda picture: torch.tensor(picture.getpixel((0, 0))) / 255, None

    all_clip = SimpleNamespace(hf_clip=None, main=SimpleNamespace(_CLIP_REGISTRY={"": load}))
    all_clip.load_clip = lambda *_, **keywords: all_clip.main._CLIP_REGISTRY[""]()
    monkeypatch.setitem(sys.modules, "all_clip", all_clip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_has_bfloat16)
    model = clip.Clip("any")
    model.device = "cpu"
    return model


def test_weights_are_known_by_the_digest_of_their_file():
    """OpenAI's by the one that it publishes for ViT-B/32; of open_clip's none is known."""
    known = {"ViT-B/32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "open_clip:ViT-B-32": None}
    for name, digest in known.items():
        model = clip.Clip.__new__(clip.Clip)
        model.name = name
        assert model.sha256 == digest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_embeddings_have_length_one_whatever_the_precision(monkeypatch, dtype):
    pictures = [Image.new("RGB", (1, 1), (10 * i + 1, 200 - 9 * i, 7)) for i in range(20)]
    vectors = loaded(monkeypatch, dtype, True).pictures(pictures)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize(
    ("dtype", "gpu_has_bfloat16", "used"),
    [
        (torch.bfloat16, True, torch.bfloat16),
        (torch.bfloat16, False, torch.float16),
        (torch.float16, False, torch.float16),
        (torch.float32, False, torch.float32),
    ],
)
def test_a_gpu_computes_in_no_precision_that_it_emulates(monkeypatch, dtype, gpu_has_bfloat16, used):
    assert loaded(monkeypatch, dtype, gpu_has_bfloat16).model.dtype == used
