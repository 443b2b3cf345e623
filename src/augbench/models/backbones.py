"""The diffusion model backbone: finds or fetches a diffusers pipeline, and what checks its images."""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from augbench.core import finite
from augbench.core.files import BadInput, read_json, whole, write_json
from augbench.models import families, local_files
from augbench.models.families import Family
from augbench.study.sections.diffusion import Generate, Sampling
from augbench.study.sections.models import Loading

CHECKER_FILES = ["config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin"]
CHECKER_FILES += ["safety_checker/*.json", "safety_checker/model.safetensors", "feature_extractor/*.json"]
AS_IT_COMES = Loading.default()
ORIGIN = "origin.json"  # in a backbone's folder: where it comes from


class Origin(NamedTuple):
    """Where a backbone comes from: the model as the configuration names it, its commit on the hub, and the licence that
    its authors name, or that is presumed for its family; None where that is not known."""

    model: str
    commit: str | None = None
    licence: str | None = None

    @property
    def title(self) -> str:
        """The model and its commit, as image tables have it."""
        return f"{self.model}@{self.commit}" if self.commit else self.model


def origin_of(folder: str | Path) -> Origin | None:
    """Where the backbone in a folder comes from; None of one that was trained in the study."""
    file = Path(folder) / ORIGIN
    return Origin(**read_json(file)) if file.is_file() else None


def resolve(
    model: str,
    folder: str | Path,
    has_checker: bool = True,
    *,
    revision: str | None = None,
    variant: str | None = None,
) -> None:
    """Put the pipeline ``model``, a local diffusers folder or a hub id, at ``folder``, with a note of its origin.

    A local folder is linked file by file where the disk allows it, else copied. Of a hub id's ``revision`` the files of
    one ``variant`` are downloaded, weights as safetensors only. They lie under their plain names. Raises ValueError
    with what to write when it cannot be had or used, or has no safety checker and should have one.
    """
    with whole(folder) as temporary:
        if local_files.is_folder(model, "backbone"):
            local_files.check_pipeline(model, has_checker, variant)
            origin = _link(model, temporary, variant)
        else:
            origin = _download(model, temporary, revision, variant)
        try:
            local_files.check_pipeline(temporary, has_checker)
        except ValueError as error:
            raise ValueError(str(error).replace(str(temporary), model)) from None
        presumed = families.of_folder(temporary).licence
        if origin.licence is None and presumed:
            origin = origin._replace(licence=f"presumed {presumed}")
        write_json(temporary / ORIGIN, origin._asdict())


def _link(model: str, folder: Path, variant: str | None) -> Origin:
    """Link the files of a local pipeline."""
    source = Path(model)
    index = local_files.pipeline_index(source)
    names = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    folder.mkdir(parents=True)
    for name, plain in local_files.of_pipeline(names, index, variant).items():
        (folder / plain).parent.mkdir(exist_ok=True)
        _link_or_copy(str(source / name), str(folder / plain))
        if name != plain and name.endswith(".json"):
            _rename_in_index(folder / plain)
    card = source / "README.md"
    licence = _licence(_front_matter(card.read_text(encoding="utf-8", errors="replace"))) if card.is_file() else None
    return Origin(model, None, licence)


def _download(model: str, folder: Path, revision: str | None, variant: str | None) -> Origin:
    """Download the files of a pipeline on the hub: first what says of which family it is."""
    import huggingface_hub as hub

    with _explained(model, "backbone"):
        facts = hub.HfApi().model_info(model, revision=revision)
        names = [file.rfilename for file in facts.siblings or []]
        if "model_index.json" not in names:
            raise BadInput(f"{model} has no model_index.json on the hub; {_no_pipeline(names)}")
        if facts.gated:
            check_token(model)
        first = hub.hf_hub_download(model, "model_index.json", revision=facts.sha, local_dir=folder)
        index = local_files.pipeline_index(Path(first).parent)
        families.of_class(index.get("_class_name"), model)
        chosen = local_files.of_pipeline(names, index, variant)
        hub.snapshot_download(model, revision=facts.sha, local_dir=folder, allow_patterns=list(chosen))
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # notes of the download
    for name, plain in chosen.items():
        if name != plain:
            (folder / name).rename(folder / plain)
            if plain.endswith(".json"):
                _rename_in_index(folder / plain)
    return Origin(model, facts.sha, _licence(facts.card_data or {}))


def _no_pipeline(names: list[str]) -> str:
    single = next((name for name in names if name.endswith((".safetensors", ".ckpt")) and "/" not in name), None)
    if single is None:
        return "give a model in diffusers' format"
    return (
        f"its file {single} may be a single-file checkpoint, of which diffusers makes a folder: "
        f"CLASS.from_single_file({single!r}).save_pretrained(FOLDER)"
    )


def check_token(model: str) -> None:
    """Raise BadInput where there is no token for a model on the hub that is gated."""
    from huggingface_hub import get_token

    if not get_token():
        raise BadInput(_gated(model))


def _gated(model: str) -> str:
    """A sentence on a model whose terms have to be accepted first."""
    terms = f"accept its terms at https://huggingface.co/{model}"
    return f"{model} is gated: {terms}, then run `hf auth login` or set HF_TOKEN"


@contextlib.contextmanager
def _explained(model: str, what: str):
    """Where a hub refuses, raise ValueError with what to do."""
    from huggingface_hub.errors import GatedRepoError

    try:
        yield
    except BadInput:
        raise
    except GatedRepoError:
        raise BadInput(_gated(model)) from None
    except Exception as error:  # of several libraries, for a network, a hub or a licence
        words = " ".join(str(error).split())[:300]
        raise ValueError(f"{model} cannot be fetched from the hub: {words}; or give a {what}'s folder") from None


def _rename_in_index(file: Path) -> None:
    """Let the index of weights in several files name them plainly."""
    index = read_json(file)
    index["weight_map"] = {tensor: local_files.plain_name(name) for tensor, name in index["weight_map"].items()}
    file.unlink()  # it may be a link to the user's
    write_json(file, index)


def _front_matter(text: str) -> Mapping:
    """The YAML at the head of a model card."""
    _, _, rest = text.partition("---\n")
    try:
        facts = yaml.safe_load(rest.partition("\n---")[0]) if text.startswith("---\n") else None
    except yaml.YAMLError:
        facts = None
    return facts if isinstance(facts, dict) else {}


def _licence(facts) -> str | None:
    """The licence that a model card names."""
    licence = facts.get("license")
    if licence == "other":
        licence = facts.get("license_name") or licence
    return ", ".join(map(str, licence if isinstance(licence, list) else [licence])) if licence else None


def resolve_checker(model: str, folder: str | Path) -> None:
    """Put the safety checker ``model``, a local folder or a hub id, at ``folder``, as it lies in a pipeline's: with the
    folders safety_checker and feature_extractor. Raises ValueError with what to write when it cannot be had or used."""
    with whole(folder) as temporary:
        _copy(model, temporary, "safety checker", CHECKER_FILES)
        try:
            local_files.check_safety_checker(temporary)
        except ValueError as error:
            raise ValueError(str(error).replace(str(temporary), model)) from None
        own, processor = (temporary / part for part in local_files.CHECKER)
        if not own.is_dir():
            files = [file for file in temporary.iterdir() if file.is_file()]
            own.mkdir()
            processor.mkdir()
            for file in files:
                file.rename((processor if file.name == "preprocessor_config.json" else own) / file.name)


def _copy(model: str, folder: Path, what: str, patterns: list[str]) -> None:
    if local_files.is_folder(model, what):
        # Hidden files are not the model's: Snakemake's time stamp, linked, would make the original look new.
        hidden = shutil.ignore_patterns(".*")
        shutil.copytree(model, folder, copy_function=_link_or_copy, ignore=hidden)
    else:
        _fetch(model, folder, what, patterns)


def _fetch(model: str, folder: Path, what: str, patterns: list[str]) -> None:
    from huggingface_hub import snapshot_download

    with _explained(model, what):
        snapshot_download(model, local_dir=folder, allow_patterns=patterns)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def with_defaults(settings: Generate, folder: str | Path) -> Sampling:
    """Settings with what the pipeline in a folder does of itself where they leave something open."""
    return families.of_folder(folder).with_defaults(settings, folder)


def load_pipeline(folder: str | Path, loading: Loading = AS_IT_COMES):
    """The diffusers pipeline in ``folder`` without its safety checker; on a GPU in its family's precision, or as
    ``loading`` says."""
    import torch

    gpu = torch.cuda.is_available()
    dtype = _precision(families.of_folder(folder), loading.dtype)
    pipeline = read_pipeline(folder, dtype)
    if gpu and hasattr(pipeline, "unet"):
        pipeline.unet.to(memory_format=torch.channels_last)
    return PLACES[loading.offload](pipeline) if gpu else pipeline.to("cpu")


def _by_part(pipeline):
    if hasattr(pipeline.vae, "enable_tiling"):
        pipeline.vae.enable_tiling()
    pipeline.enable_model_cpu_offload()
    return pipeline


def _by_layer(pipeline):
    pipeline.enable_attention_slicing()
    if hasattr(pipeline.vae, "enable_tiling"):
        pipeline.vae.enable_tiling()
    pipeline.enable_sequential_cpu_offload()
    return pipeline


# How a pipeline comes to a GPU, by `offload`.
PLACES: dict[str, Callable] = {"none": lambda pipeline: pipeline.to("cuda"), "model": _by_part, "sequential": _by_layer}


def read_pipeline(folder: str | Path, dtype=None):
    """The diffusers pipeline in ``folder`` on the CPU, without its safety checker, in ``dtype`` or float32."""
    import torch
    from diffusers import DiffusionPipeline

    index = local_files.pipeline_index(Path(folder))
    more = families.of_class(index.get("_class_name"), str(folder)).components(index)
    return DiffusionPipeline.from_pretrained(folder, dtype=dtype or torch.float32, **more)


def _precision(family: Family, wanted: str):
    """The type of a pipeline's numbers: the one that is wanted, or on a GPU the family's own, of which older ones only
    emulate bfloat16."""
    import torch

    if wanted != "auto":
        return getattr(torch, wanted)
    if not torch.cuda.is_available():
        return torch.float32
    emulated = family.dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if emulated else getattr(torch, family.dtype)


def load_vae(folder: str | Path):
    """The autoencoder of the pipeline in ``folder``, alone; on a GPU in half precision."""
    import torch
    from diffusers import AutoencoderKL

    gpu = torch.cuda.is_available()
    vae = AutoencoderKL.from_pretrained(Path(folder) / "vae", dtype=torch.float16 if gpu else torch.float32)
    return vae.to("cuda" if gpu else "cpu")


def in_enough_precision(model, compute: Callable, inputs):
    """``compute(inputs)``, a tensor of items that ``model`` gives for a tensor of its own precision. Where that is
    float16, items with numbers that it could not hold are computed again in float32."""
    import torch

    outputs = compute(inputs)
    if model.dtype != torch.float16 or not (bad := finite.bad_items(outputs)):
        return outputs
    print(
        f"{len(bad)} of {len(inputs)} images are computed again in float32, for which float16 is too small", flush=True
    )
    model.float()
    try:
        outputs[bad] = compute(inputs[bad].float()).to(outputs.dtype)
    finally:
        model.half()
    return outputs


class NoChecker:
    """Stands for the safety checker of a study that has none."""

    def unsafe(self, pictures: list) -> list[bool]:
        return [False] * len(pictures)


def safety_checker(folder: str | Path | None) -> "SafetyChecker | NoChecker":
    """What judges generated and retrieved images; without a folder nothing does."""
    return NoChecker() if folder is None else SafetyChecker(folder)


class SafetyChecker:
    """A safety checker, for generated and retrieved images alike (paper, sections 3 and 3.1): of a pipeline's folder,
    or of one with the same folders safety_checker and feature_extractor."""

    def __init__(self, pipeline_folder: str | Path):
        import torch
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from diffusers.utils import logging
        from transformers import CLIPImageProcessor

        # It would say "a black image will be returned", which is not what happens here.
        logging.get_logger(StableDiffusionSafetyChecker.__module__).setLevel(logging.ERROR)
        gpu = torch.cuda.is_available()
        self._device, self._dtype = ("cuda", torch.float16) if gpu else ("cpu", torch.float32)
        folder = Path(pipeline_folder)
        result: Any = StableDiffusionSafetyChecker.from_pretrained(folder / "safety_checker", output_loading_info=True)
        model, loaded = result
        if missing := sorted(loaded["missing_keys"]):  # transformers would fill them with random numbers
            raise RuntimeError(f"the safety checker in {folder} has no weights {missing[0]}; give another backbone")
        self._model = model.to(self._device, self._dtype).eval()
        finite.check_weights(self._model, f"the safety checker in {folder}", "give another backbone")
        self._processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor")

    def unsafe(self, pictures: list, batch_size: int = 64) -> list[bool]:
        """For each RGB ``PIL.Image`` whether the checker refuses it."""
        import numpy as np

        refused = []
        for start in range(0, len(pictures), batch_size):
            part = pictures[start : start + batch_size]
            pixels = self._processor(part, return_tensors="pt").pixel_values
            pixels = pixels.to(self._device, self._dtype)
            # The checker blackens what it is given to blacken; only its verdict is wanted here.
            _, flags = self._model(clip_input=pixels, images=[np.zeros((1, 1, 3)) for _ in part])
            refused += [bool(flag) for flag in flags]
        return refused
