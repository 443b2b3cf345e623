"""The networks that can be trained as classifiers: a class for each library they come from, and the table of them.

Nothing else in the program compares a network's name with a string: it asks the object that :func:`library_of` returns.
A new library is a class here and a row of ``LIBRARIES``. torch is imported by those methods alone that need it.
"""

import difflib
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from augbench.core.package_data import package_folder

SMALL = "small_cnn"
SMALL_PARAMETERS = 100_000  # of small_cnn, about
LARGE_PARAMETERS = 90_000_000  # of a network of timm, say: a ViT-B
SIDE = 224  # pixels, of networks that do not say
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in [0, 1]
WITH_AUXILIARY_HEADS = {"googlenet", "inception_v3"}
WEIGHTS = "model.safetensors"
SAVE = "write it with `timm.models.save_for_hf(model, FOLDER, safe_serialization=True)`"
LOCAL = "local-dir:"  # how timm writes a folder in place of a model's name


class View(NamedTuple):
    """How a network sees pictures: their size in pixels, mean and standard deviation of pixels in [0, 1] by which they
    are normalised, and the interpolation (a member of ``PIL.Image.Resampling``) of training crops.

    ``scored`` makes of a picture what is scored; without it that is torchvision's central square, or the ``whole``
    image.
    """

    size: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    interpolation: str = "BILINEAR"
    whole: bool = False
    scored: Callable | None = None


class Weights(NamedTuple):
    """Pretrained weights: the model as the configuration names it, the commit of the hub's repository that they come
    from, the digest of their file, and their licence; None where that is not known."""

    name: str
    revision: str | None
    sha256: str
    licence: str | None


class Library:
    """What the program asks of a library of networks."""

    example: str
    meaning: str  # for the reference of the configuration
    has_weights = False  # pretrained ones
    default_size: int | None = SIDE  # pixels; None: the model says

    def fits(self, model: str) -> bool:
        """Whether a model's name is of this library."""
        raise NotImplementedError

    def check(self, model: str, image_size: int | None = None, pretrained: bool = False) -> None:
        """Raise ValueError unless there is such a model, as far as that is known without loading it."""

    def folder(self, model: str) -> str | None:
        """The folder of a model of this machine; None for any other."""
        return None

    def parameters(self, model: str) -> int:
        """The numbers in a model's weights, about."""
        raise NotImplementedError

    def build(self, model: str, classes: int, image_size: int | None, pretrained: bool) -> tuple[Any, Weights | None]:
        """A network that maps (batch, 3, size, size) to (batch, ``classes``) logits, its last layer untrained, and
        where its weights come from if they are pretrained. Raises ValueError for a model that is not known."""
        raise NotImplementedError

    def view(self, module, image_size: int | None) -> View:
        """How a network that was built sees pictures."""
        return View(image_size or SIDE)


class Small(Library):
    example = SMALL
    meaning = "three convolutional layers, for images of about 32 pixels"

    def fits(self, model):
        return model == SMALL

    def parameters(self, model):
        return SMALL_PARAMETERS

    def build(self, model, classes, image_size, pretrained):
        """Three convolutional blocks and global pooling, 68,000 parameters."""
        from torch import nn

        def block(before: int, after: int):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            return [convolution, nn.BatchNorm2d(after), nn.ReLU()]

        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes)]
        return nn.Sequential(*block(3, 24), *block(24, 48), *block(48, 128), *head), None

    def view(self, module, image_size):
        return View(image_size or SIDE, whole=True)


class Timm(Library):
    example = "timm/NAME"
    meaning = "a model of timm, or local-dir:FOLDER, one that timm.models.save_for_hf has written"
    has_weights = True
    default_size = None

    def fits(self, model):
        return model.startswith(("timm/", LOCAL))

    def folder(self, model):
        name = _timms(model)
        return name.removeprefix(LOCAL) if name.startswith(LOCAL) else None

    def check(self, model, image_size=None, pretrained=False):
        folder = self.folder(model)
        if folder is None:
            name = _timms(model).partition(".")[0]
            if name not in timm_models():
                raise ValueError(f"unknown model {model!r}; did you mean {_near(name, timm_models(), 'timm/')}?")
            return
        for file in ["config.json", *([WEIGHTS] * pretrained)]:
            if not (Path(folder) / file).is_file():
                raise ValueError(f"there is no {file} in {folder}; {SAVE}")
        settings = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        _check_size(model, settings.get("pretrained_cfg") or settings, image_size)

    def parameters(self, model):
        folder = self.folder(model)
        file = Path(folder) / WEIGHTS if folder else None
        return file.stat().st_size // 4 if file and file.is_file() else LARGE_PARAMETERS

    def build(self, model, classes, image_size, pretrained):
        import timm

        name, folder = _timms(model), self.folder(model)
        facts = _pretrained_facts(model, name, folder)
        _check_size(model, facts, image_size)
        file, weights, options = None, None, {}
        if pretrained:
            file, weights = _weights_of(model, folder, facts)
            options = {"pretrained_cfg_overlay": {"file": str(file), "source": ""}} if folder is None else {}
        module: Any = timm.create_model(name, pretrained=pretrained, num_classes=classes, **options)
        module.reset_classifier(classes)  # also where its own layer has as many classes, but others
        return module, weights

    def view(self, module, image_size):
        from timm import data

        settings = data.resolve_model_data_config(module)
        size = image_size or int(settings["input_size"][-1])
        settings["input_size"] = (3, size, size)
        steps: Any = data.create_transform(**settings, is_training=False, normalize=False)

        def scored(picture):
            for step in list(steps.transforms)[:-1]:  # all but the last, which makes a tensor
                picture = step(picture)
            return picture

        return View(size, settings["mean"], settings["std"], settings["interpolation"].upper(), scored=scored)


class Torchvision(Library):
    example = "resnet50"
    meaning = "any classification model of torchvision"

    def fits(self, model):
        return True

    def check(self, model, image_size=None, pretrained=False):
        if model not in known_models():
            names = _near(model, known_models()) or f"{SMALL!r} or 'resnet50'"
            raise ValueError(f"unknown classifier {model!r}; did you mean {names}?")

    def parameters(self, model):
        return _stated_parameters().get(model, SMALL_PARAMETERS)

    def build(self, model, classes, image_size, pretrained):
        self.check(model)
        import torchvision  # takes seconds, which the small one need not wait for

        # Heads that nothing trains: several processes would wait for their gradients.
        options = {"aux_logits": False} if model in WITH_AUXILIARY_HEADS else {}
        return torchvision.models.get_model(model, weights=None, num_classes=classes, **options), None


LIBRARIES: list[Library] = [Small(), Timm(), Torchvision()]


def library_of(model: str) -> Library:
    """The library that a model's name is of: torchvision's has all names that are of no other."""
    return next(library for library in LIBRARIES if library.fits(model))


@functools.cache
def known_models() -> list[str]:
    """``small_cnn`` and torchvision's classification models, without the seconds that importing it takes."""
    registered = re.compile(r"^@register_model\(\).*?^def (\w+)\(", re.MULTILINE | re.DOTALL)
    names = {name for text in _sources() for name in registered.findall(text)}
    return [SMALL, *sorted(names)]


@functools.cache
def _stated_parameters() -> dict[str, int]:
    """Parameters of torchvision's models that have weights, as its sources state them."""
    stated = re.compile(r"^class (\w+)_Weights\(.*?\"num_params\": (\d+)", re.MULTILINE | re.DOTALL)
    return {weights.lower(): int(count) for text in _sources() for weights, count in stated.findall(text)}


@functools.cache
def timm_models() -> list[str]:
    """timm's architectures, likewise; of ``resnet50.a1_in1k`` it is the part before the point."""
    registered = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
    files = (package_folder("timm") / "models").rglob("*.py")
    deprecated = re.compile(r"^register_model_deprecations\(.*?^\}\)", re.MULTILINE | re.DOTALL)
    old = re.compile(r"'(\w+)':")
    names: set[str] = set()
    for text in (file.read_text("utf-8") for file in files):
        names.update(registered.findall(text))
        names.update(name for block in deprecated.findall(text) for name in old.findall(block))
    return sorted(names)


def _sources() -> list[str]:
    folder = package_folder("torchvision") / "models"
    return [file.read_text("utf-8") for file in folder.glob("*.py")]


def _near(name: str, known: Iterable[str], prefix: str = "") -> str:
    return " or ".join(repr(prefix + each) for each in difflib.get_close_matches(str(name).lower(), known, 3, 0.4))


def _timms(model: str) -> str:
    """A model as timm names it."""
    return model.removeprefix("timm/")


def _pretrained_facts(model: str, name: str, folder: str | None) -> dict:
    """What timm says of a model's pretrained weights."""
    from timm import models
    from timm.models._hub import load_model_config_from_path

    if folder is not None:
        return load_model_config_from_path(folder)[0]
    if not models.is_model(name.partition(".")[0]) or ("." in name and not models.is_model_pretrained(name)):
        known = models.list_pretrained(f"{name.partition('.')[0]}*")[:3]
        more = f"; timm has {', '.join(f'timm/{each}' for each in known)}" if known else ""
        raise ValueError(f"timm has no model {model}{more}")
    facts = models.get_pretrained_cfg(name)
    assert facts  # the name is known
    return facts.to_dict()


def _check_size(model: str, facts: dict, image_size: int | None) -> None:
    """Raise ValueError where a model takes images of another size alone."""
    size = (facts.get("input_size") or (3, SIDE, SIDE))[-1]
    if facts.get("fixed_input_size") and image_size not in (None, size):
        raise ValueError(
            f"{model} takes images of {size} pixels alone; write `image_size: {size}` or leave out `image_size`"
        )


def _weights_of(model: str, folder: str | None, facts: dict) -> tuple[Path, Weights]:
    """The file of a model's pretrained weights, downloaded where it is not on this machine, and what is known of it."""
    if folder is not None:
        file, revision = Path(folder) / WEIGHTS, None
        if not file.is_file():
            raise ValueError(f"there is no {WEIGHTS} in {folder}; {SAVE}")
    else:
        import huggingface_hub as hub

        where = facts.get("hf_hub_id")
        if not where:
            raise ValueError(f"there are no pretrained weights of {model} on the hub; name another model")
        name, _, wanted = str(where).partition("@")
        is_open_clips = "open_clip" in (facts.get("hf_hub_filename") or "")
        filename = "open_clip_model.safetensors" if is_open_clips else WEIGHTS
        file = Path(hub.hf_hub_download(name, filename, revision=wanted or None))
        revision = file.parent.name  # .../snapshots/COMMIT/model.safetensors
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return file, Weights(model, revision, digest, facts.get("license"))
