"""What can be known of a pretrained model without loading it: whether it is there, whole, and of a usable kind.

Models are named as the libraries that load them want it: a folder, or an id on the Hugging Face hub. Nothing here asks
a network or imports torch. Source of the folders' layout: diffusers' and transformers' ``save_pretrained``.
"""

import ast
import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from augbench.core.package_data import package_folder
from augbench.models import families

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".onnx")
PICKLES = {"model": "pytorch_model.bin", "diffusion_pytorch_model": "diffusion_pytorch_model.bin"}
CONFIGS = {  # what a part has that holds no weights, by a word in its name
    "scheduler": "scheduler_config.json",
    "feature_extractor": "preprocessor_config.json",
    "processor": "preprocessor_config.json",
    "tokenizer": "vocab.json",
}
DESCRIPTIONS = (".json", ".txt", ".model", ".jinja")  # files of a part that hold no weights
CHECKER = ("safety_checker", "feature_extractor")  # the parts of a pipeline that judge what it shows

NO_CHECKER = (
    "generated and retrieved images are checked by it; name one, "
    "`safety: {model: CompVis/stable-diffusion-safety-checker}`, or check nothing, `safety: {model: none}`"
)


def is_folder(name: str, what: str) -> bool:
    """Whether a name is a folder here; else it is an id on the hub.

    Raises ValueError when it can be neither: a path to nothing, or a single file.
    """
    path = Path(name)
    if name and path.is_dir():
        return True
    if path.is_file():
        raise ValueError(_single_file(name, what))
    is_path = not HUB_ID.fullmatch(name) or name.endswith(WEIGHTS)
    if is_path or ("/" in name and Path(name.split("/")[0]).is_dir()):
        raise ValueError(f"there is no folder {name}; give the {what}'s folder, or its id on the hub, e.g. owner/name")
    return False


def _single_file(name: str, what: str) -> str:
    convert = "StableDiffusionPipeline (or the model's own class).from_single_file(FILE).save_pretrained(FOLDER)"
    hint = f"; diffusers makes one of a single-file checkpoint: {convert}" if what == "backbone" else ""
    return f"{name} is a file; give the {what} as a folder that its library saved, or its id on the hub{hint}"


# --- diffusion pipelines --------------------------------------------------------------------------------


def check_pipeline(folder: str | Path, has_checker: bool = True, variant: str | None = None) -> None:
    """Raise ValueError unless a folder is a whole diffusers pipeline that augbench can use, with a safety checker of
    its own where that is wanted (``has_checker``), and weights of the ``variant`` where there are such."""
    folder = Path(folder)
    index = pipeline_index(folder)
    family = families.of_class(index.get("_class_name"), str(folder))
    parts = components(index)
    for part in (*family.parts, *(CHECKER if has_checker else ())):
        if part not in parts or not (folder / part).is_dir():
            raise ValueError(
                f"{folder} has no {part}: {NO_CHECKER}"
                if part in CHECKER
                else f"{folder} has no {part}; give a whole pipeline"
            )
    for part, library in parts.items():
        if part not in CHECKER or has_checker:
            _check_part(folder / part, library, variant)
    scheduler = _json(folder / "scheduler" / "scheduler_config.json", "")
    families.check_objective(family, scheduler, str(folder))


def pipeline_index(folder: Path) -> dict:
    """What ``model_index.json`` says. Raises ValueError unless the folder is a pipeline's."""
    return _json(folder / "model_index.json", f"{folder} has no model_index.json; give a diffusers pipeline's folder")


def components(index: Mapping) -> dict[str, str]:
    """The parts of a pipeline that its index names, with the library that saved each."""
    return {
        part: str(value[0])
        for part, value in index.items()
        if isinstance(value, list) and not part.startswith("_") and any(value)
    }


def _check_part(folder: Path, library: str, variant: str | None) -> None:
    """Raise ValueError unless a part of a pipeline is whole; what it is, the files say that its library saves."""
    name = folder.name
    config = next((file for kind, file in CONFIGS.items() if kind in name), None)
    if config:
        if not (folder / config).is_file() and not ("tokenizer" in name and any(folder.glob("*"))):
            raise ValueError(f"{folder} has no {config}; give a whole pipeline")
        return
    _json(folder / "config.json", f"{folder} has no config.json; give a whole pipeline")
    check_weights(folder, "diffusion_pytorch_model" if library == "diffusers" else "model", variant)


def check_safety_checker(folder: str | Path) -> None:
    """Raise ValueError unless a folder is a safety checker, as its library saves it, or a pipeline that ships one."""
    folder = Path(folder)
    if (folder / "safety_checker").is_dir():
        model, processor = (folder / part for part in CHECKER)
    else:
        model = processor = folder
    for place, name in ((model, "config.json"), (processor, "preprocessor_config.json")):
        _json(place / name, f"{place} has no {name}; give a folder as CompVis/stable-diffusion-safety-checker has it")
    check_weights(model, "model")


def check_weights(folder: Path, stem: str, variant: str | None = None) -> None:
    """Raise ValueError unless a folder has the weights ``STEM.safetensors``, whole, in one file or several; or, where
    there are such, those of the ``variant``."""
    names = [file.name for file in folder.glob("*")]
    chosen = {name: plain for name, plain in of_variant(names, variant).items() if plain.startswith(stem)}
    index = next((name for name, plain in chosen.items() if plain == f"{stem}.safetensors.index.json"), None)
    whole = next((name for name, plain in chosen.items() if plain == f"{stem}.safetensors"), None)
    if index:
        files = sorted(set(_json(folder / index, "").get("weight_map", {}).values()))
    elif whole:
        files = [whole]
    elif (folder / PICKLES[stem]).is_file():
        return
    else:
        matches = [match for name in sorted(names) if (match := WEIGHTS_NAME.fullmatch(name))]
        other = next((match for match in matches if match["variant"]), None)
        if other:
            raise ValueError(
                f"{folder} has its weights as {other[0]} only; write `variant: {other['variant']}` beside the model's "
                f"name, or give a model with {stem}.safetensors"
            )
        raise ValueError(f"{folder} has no {stem}.safetensors")
    for file in files:
        check_safetensors(folder / file)


WEIGHTS_NAME = re.compile(
    r"(?P<stem>model|diffusion_pytorch_model)"
    r"(\.(?P<variant>[A-Za-z]\w*))?(?P<shard>-\d+-of-\d+)?(\.(?P<late>[A-Za-z]\w*))?\.safetensors"
    r"(?P<index>\.index(\.(?P<of_index>[A-Za-z]\w*))?\.json)?"
)


def of_variant(names: Iterable[str], variant: str | None) -> dict[str, str]:
    """Of the files of one part of a pipeline those with the weights of a variant, and their plain names; where it has
    none of the variant, the plain ones. A variant's name stands at one of several places, as diffusers and
    transformers wrote it at different times."""
    by_variant: dict[str | None, dict[str, str]] = {}
    for name in names:
        if match := WEIGHTS_NAME.fullmatch(name):
            own = match["variant"] or match["late"] or match["of_index"]
            by_variant.setdefault(own, {})[name] = plain_name(name)
    return by_variant.get(variant) or by_variant.get(None, {})


def plain_name(name: str) -> str:
    """What a file of weights, or their index, is called without its variant's name."""
    match = WEIGHTS_NAME.fullmatch(name)
    index = ".index.json" if match and match["index"] else ""
    return f"{match['stem']}{match['shard'] or ''}.safetensors{index}" if match else name


def of_pipeline(names: Iterable[str], index: Mapping, variant: str | None) -> dict[str, str]:
    """Of all files of a pipeline those that it takes to load it with the weights of a variant, by their plain names.

    Single-file checkpoints beside its parts, other variants and other formats are left out, but for the pickled weights
    of a part that has no others.
    """
    by_part: dict[str, list[str]] = {}
    for name in names:
        part, _, file = name.rpartition("/")
        by_part.setdefault(part, []).append(file)
    chosen = {name: name for name in ("model_index.json", "README.md") if name in by_part.get("", [])}
    for part in components(index):
        own = by_part.get(part, [])
        weights = of_variant(own, variant)
        described = [name for name in own if name.endswith(DESCRIPTIONS) and not WEIGHTS_NAME.fullmatch(name)]
        pickles = [] if weights else [name for name in own if name in PICKLES.values()]
        files = dict.fromkeys([*described, *pickles]) | weights
        chosen |= {f"{part}/{name}": f"{part}/{plain or name}" for name, plain in files.items()}
    return chosen


def check_safetensors(file: Path) -> None:
    """Raise ValueError unless a safetensors file is as long as its head says."""
    if not file.is_file():
        raise ValueError(f"{file.parent} has no {file.name}, which its index names")
    size = file.stat().st_size
    with open(file, "rb") as opened:
        start = opened.read(8)
        if start == b"version ":
            raise ValueError(f"{file} is a Git LFS pointer and not the weights; run `git lfs pull` there")
        length = int.from_bytes(start, "little")
        try:
            if len(start) < 8 or 8 + length > size:
                raise ValueError("its head is cut off")
            head = json.loads(opened.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in head.items() if name != "__metadata__"]
        except (ValueError, AttributeError, KeyError, TypeError):
            raise ValueError(f"{file} is not a safetensors file, or is cut off") from None
    if size != 8 + length + max(ends, default=0):
        raise ValueError(f"{file} is cut off: it has {size} bytes and should have {8 + length + max(ends, default=0)}")


def _json(file: Path, lacking: str) -> dict:
    if not file.is_file():
        raise ValueError(lacking)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a JSON object")
    return content


# --- CLIP, by the names that clip-retrieval takes -------------------------------------------------------


def check_clip(name: str) -> None:
    """Raise ValueError unless clip-retrieval can take the name of a CLIP, as far as that is known here."""
    kind, _, rest = name.rpartition(":") if ":" not in name else name.partition(":")
    if kind in ("nm", "ja_clip"):
        return
    if kind == "hf_clip":
        if is_folder(rest, "CLIP"):
            _check_clip_folder(Path(rest))
        return
    if kind == "open_clip":
        _check_open_clip(rest)
    elif kind not in ("", "openai_clip"):
        raise ValueError(f"there is no kind of CLIP {kind!r}{_meant(kind, KINDS)} (known: {', '.join(KINDS)})")
    elif rest not in openai_clips() and not Path(rest).is_file():
        known = [*openai_clips(), *(f"open_clip:{model}" for model in open_clips())]
        alike = [each for each in openai_clips() if each.replace("/", "-").lower() == rest.replace("/", "-").lower()]
        meant = [*alike, *(f"open_clip:{model}" for model in open_clips() if model == rest)]
        meant = f", did you mean {meant[0]!r}?" if meant else _meant(name, known)
        raise ValueError(
            f"there is no CLIP {name!r}{meant} (OpenAI's are {', '.join(openai_clips())}; others begin "
            "with open_clip: or hf_clip:)"
        )


KINDS = ("open_clip", "hf_clip", "openai_clip", "nm", "ja_clip")


def _check_open_clip(name: str) -> None:
    if name.startswith(("hf-hub:", "local-dir:")):
        return
    model, _, checkpoint = name.partition("/")
    known = open_clips()
    if model not in known:
        meant = _meant(name.replace("/", "-"), known)
        raise ValueError(
            f"open_clip has no model {model!r}{meant}; write open_clip:MODEL or open_clip:MODEL/CHECKPOINT"
        )
    if not known[model] and not checkpoint and not model.endswith("quickgelu"):  # these have the others' checkpoints
        raise ValueError(f"open_clip has no checkpoint of {model}; write open_clip:{model}/FILE")
    if checkpoint and known[model] and checkpoint not in known[model] and not Path(checkpoint).is_file():
        meant = _meant(checkpoint, known[model])
        raise ValueError(
            f"open_clip's {model} has no checkpoint {checkpoint!r}{meant} (known: {', '.join(known[model])})"
        )


def _check_clip_folder(folder: Path) -> None:
    config = _json(
        folder / "config.json", f"{folder} has no config.json; give a CLIP's folder as transformers saves it"
    )
    if config.get("model_type") != "clip":
        raise ValueError(f"{folder} is a {config.get('model_type')}, but a CLIP is needed")
    names = ("processor_config.json", "preprocessor_config.json")  # the second before transformers 5
    if not any((folder / name).is_file() for name in names):
        raise ValueError(f"{folder} has no {names[0]}")
    check_weights(folder, "model")


def clip_width(name: str) -> int | None:
    """The width of a CLIP's embeddings; None where that is not known here."""
    kind, _, rest = name.partition(":") if ":" in name else ("", "", name)
    if kind in ("", "openai_clip"):
        return OPENAI_WIDTHS.get(rest)
    if kind == "open_clip":
        file = package_folder("open_clip") / "model_configs" / f"{rest.partition('/')[0]}.json"
        return json.loads(file.read_text(encoding="utf-8")).get("embed_dim") if file.is_file() else None
    if kind == "hf_clip" and (Path(rest) / "config.json").is_file():
        return _json(Path(rest) / "config.json", "").get("projection_dim", 512)  # transformers' default
    return None


OPENAI_WIDTHS = {
    "RN50": 1024,
    "RN101": 512,
    "RN50x4": 640,
    "RN50x16": 768,
    "RN50x64": 1024,
    "ViT-B/32": 512,
    "ViT-B/16": 512,
    "ViT-L/14": 768,
    "ViT-L/14@336px": 768,
}


def openai_clips() -> list[str]:
    """The names of OpenAI's CLIPs."""
    return list(OPENAI_WIDTHS)


@functools.cache
def open_clips() -> dict[str, list[str]]:
    """open_clip's models and their checkpoints, read from its sources: importing it takes seconds."""
    folder = package_folder("open_clip")
    values: dict[str, ast.expr] = {}

    def keys(node: ast.expr) -> dict[str, ast.expr]:
        """The items of a dict, written as {...}, as dict(...) or as a name of one."""
        if isinstance(node, ast.Name):
            return keys(values[node.id]) if node.id in values else {}
        if isinstance(node, ast.Dict):
            items = zip(node.keys, node.values, strict=True)
            return {str(key.value): value for key, value in items if isinstance(key, ast.Constant)}
        if isinstance(node, ast.Call):
            return {word.arg: word.value for word in node.keywords if word.arg}
        return {}

    for node in ast.parse((folder / "pretrained.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = node.value
    known = {file.stem: [] for file in sorted((folder / "model_configs").glob("*.json"))}
    return known | {model: list(keys(checkpoints)) for model, checkpoints in keys(values["_PRETRAINED"]).items()}


def _meant(word: str, known) -> str:
    close = difflib.get_close_matches(word.lower(), list(map(str.lower, known)), 1, 0.5)
    names = {name.lower(): name for name in known}
    return f", did you mean {names[close[0]]!r}?" if close else ""
