"""Encoders, in whose features sets of images are compared: a class for each, and the table of them.

An encoder is written as its name, or NAME/MODEL where it has several. A new one is a class here and a row of
``ENCODERS``. torch is imported by those methods alone that need it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from augbench.study.architectures import LOCAL
from augbench.study.sections.base import did_you_mean


class Encoder:
    """What the program asks of an encoder; this one's answers hold unless a class below says otherwise."""

    name: str
    meaning: str  # for the reference of the configuration
    example: str  # as a configuration writes it
    is_judge = False  # the classifier that measures the domain gap, whose features are at hand
    needs_clip = False
    has_models = False  # NAME/MODEL

    def folder(self, model: str) -> str | None:
        """The folder of a model of this machine; None for any other."""
        return None

    def embedder(self, model: str, load_clip: Callable) -> Callable[[list], object]:
        """A function of a list of RGB ``PIL.Image`` that gives features, float32 (n, d)."""
        raise NotImplementedError


class OfJudge(Encoder):
    name = example = "classifier"
    meaning = "that of the domain gap, which was trained on real images of the target"
    is_judge = True


class OfClip(Encoder):
    name = example = "clip"
    meaning = "the study's CLIP"
    needs_clip = True

    def embedder(self, model, load_clip):
        return load_clip().pictures


class OfTimm(Encoder):
    name = "timm"
    example = "timm/vit_small_patch14_dinov2.lvd142m"
    meaning = "a pretrained model of timm, which fetches it, or timm/local-dir:FOLDER"
    has_models = True

    def folder(self, model):
        return model.removeprefix(LOCAL) if model.startswith(LOCAL) else None

    def embedder(self, model, load_clip):
        import timm
        import torch
        from timm import data

        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = timm.create_model(model, pretrained=True, num_classes=0).eval().to(device)
        prepare: Any = data.create_transform(**data.resolve_model_data_config(network), is_training=False)

        def embed(pictures: list):
            with torch.inference_mode():
                return network(torch.stack([prepare(picture) for picture in pictures]).to(device)).float().cpu().numpy()

        return embed


ENCODERS: dict[str, Encoder] = {encoder.name: encoder for encoder in (OfJudge(), OfClip(), OfTimm())}


def find(text: str) -> tuple[Encoder, str]:
    """The encoder of a configuration, and the model that it names, or an empty text. Raises ValueError."""
    name, slash, model = text.partition("/")
    encoder = ENCODERS.get(name)
    if encoder is None:
        known = ", ".join(row.example for row in ENCODERS.values())
        raise ValueError(f"there is no encoder {text!r}{did_you_mean(name, ENCODERS)} (known: {known})")
    if bool(slash and model) != encoder.has_models:
        raise ValueError(f"the encoder {name} is written as `{encoder.example}`")
    return encoder, model


def check(text: str) -> None:
    """Raise ValueError when an encoder names a folder of this machine that does not hold a model."""
    encoder, model = find(text)
    folder = encoder.folder(model)
    if folder is not None and not (Path(folder) / "config.json").is_file():
        raise ValueError(f"there is no config.json in {folder}; name a folder that timm.save_for_hf has written")
