"""Looks at a folder of labelled images and writes a commented configuration for a study of it.

``python -m augbench.jobs.new_study IMAGES NAME`` (or ``make new-study IMAGES=... NAME=...``) writes config/NAME.yaml.
"""

import argparse
import itertools
import math
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from augbench import images
from augbench.core.files import printable
from augbench.dataset import checks as target_checks
from augbench.dataset import splits
from augbench.images import folders, places
from augbench.jobs import checks, resources
from augbench.study import classes, config
from augbench.study.parts import PARTS
from augbench.study.readers import reader_of

EDITOR = "# yaml-language-server: $schema="  # begins a line that editors read
LOOKED_AT = 500  # images whose size is read, spread over all classes
SCARCE = 5  # images of a class below which there is nothing to split, whatever the shares
METHODS = ["none", "simple_prompt", "clip_prompts"]  # what needs no pool and no fine-tuning


@dataclass(frozen=True)
class TargetInfo:
    """What a folder or list holds: images per class, sides (pixels, the shorter ones) of some, held-out splits of its
    own, and what is ignored among them (a sentence, or empty)."""

    target: config.Target
    counts: dict[str, int]
    sides: list[int]
    own: frozenset[str]
    ignored: str


def examine(path: str, top_folders: str | None = None) -> TargetInfo:
    """Count a folder's images and read some sizes. Raises ValueError with one sentence when no study can be made of it.

    ``top_folders`` : ``splits`` or ``classes``, where their names do not say
    """
    row = {"reader": reader_of(Path(path)).name, "path": str(path), "folders": top_folders}
    section = config.Target.model_validate(row)
    target_checks.check(section)
    layout = section.reader.layout(section)
    files = {key: sorted(layout.train(key)) for key in layout.classes}
    for images_of in layout.own.values():
        for key in layout.classes:
            for _ in images_of(key):
                pass  # read to count what is ignored among them
    least = _least(layout.own)
    scarce = next((key for key, mine in files.items() if len(mine) < least), None)
    if scarce is not None and len(layout.own) < 2:
        raise ValueError(
            f"the class {scarce} of {path} has {len(files[scarce])} training images; at least {least} are needed to "
            "split them: add images or remove the class"
        )
    every_file = [file for mine in files.values() for file in mine]
    if odd := next((file for file in map(places.file_of, every_file) if not folders.is_text(file)), None):
        raise ValueError(f"the name of {printable(odd)} is not UTF-8; rename it")
    some = every_file[:: max(1, len(every_file) // LOOKED_AT)]
    sides = sorted(min(size) for file in some if (size := images.size_of(places.to_open(file))))
    if not sides:
        raise ValueError(f"none of the images of {path} that were looked at can be read")
    counts = {key: len(mine) for key, mine in files.items()}
    return TargetInfo(section, counts, sides, frozenset(layout.own), folders.left_out_message(layout.left_out))


def _shares(own: Collection[str]) -> dict[str, float]:
    """The shares of a class's images that are split off, where the target has these splits of its ``own``."""
    drawn = [name for name in ("validation", "test") if name not in own]
    return {"train": 0.8 if drawn else 1.0} | {name: 0.2 / len(drawn) for name in drawn}


def _least(own: Collection[str]) -> int:
    """Images that a class must have so that none of its splits is empty."""
    shares = _shares(own)
    dataset = config.Dataset(**shares)
    return next(n for n in itertools.count(SCARCE) if all(splits.sizes(n, dataset, own)[name] for name in shares))


def suggestion(info: TargetInfo) -> dict:
    """The sections of a study that follow from what was found."""
    median = info.sides[len(info.sides) // 2]
    small = median < 64
    shares = _shares(info.own)
    side = 32 if small else 128 if median < 160 else 224
    batch = 256 if sum(info.counts.values()) > 20_000 else 64 if sum(info.counts.values()) > 2000 else 32
    return {
        "seed": 1,
        "runs": 5,
        "methods": METHODS,
        "target": {key: value for key, value in info.target.model_dump().items() if value and key != "unreadable"},
        "dataset": shares,
        "backbone": {"model": "CompVis/stable-diffusion-v1-4"},
        "generate": {"image_size": 512, "times": 3, "steps": 50},
        "classifier": {
            "model": "small_cnn" if small else "resnet18" if batch < 256 else "resnet50",
            "image_size": side,
            "batch_size": batch,
            "learning_rate": 0.1 * batch / 256,
        },
        "drop_leaks": True,
        "jobs": {"classes_per_generation": max(1, min(1000, math.ceil(10_000 / max(1, _per_class(info, shares)))))},
    }


def _per_class(info: TargetInfo, shares: dict) -> float:
    return 3 * shares["train"] * sum(info.counts.values()) / len(info.counts)


def estimate(info: TargetInfo, study: dict) -> dict[str, float]:
    """For each generating method: images, GPU-hours by the paper's figures (T4) and GB; and a classifier's hours."""
    training = [splits.sizes(n, config.Dataset(**study["dataset"]), info.own)["train"] for n in info.counts.values()]
    generate = study["generate"]
    generated = sum(classes.generated(n, generate["times"], None) for n in training)
    seen = study["classifier"]
    return {
        "training": sum(training),
        "images": generated,
        "hours": resources.sampling(generated, generate["steps"], generate["image_size"]) / 3600,
        "gigabytes": resources.pictures(generated, generate["image_size"], "png", 100) / 1e9,
        "classifier_hours": study["runs"] * resources.classifier(2 * sum(training), 100, seen["image_size"]) / 3600,
        "finetuning_hours": resources.finetuning(sum(training), 40, generate["image_size"], PARTS.values()) / 3600,
    }


def text(name: str, info: TargetInfo, folder: str | Path = "config") -> str:
    """The configuration file, to be written into a folder."""
    study = suggestion(info)
    cost = estimate(info, study)
    dump = {key: _block(key, value) for key, value in study.items()}
    dump["methods"] = "methods:\n" + "\n".join(f"  - {method}" for method in METHODS)
    counts = info.counts
    generating = len(METHODS) - 1
    own = " and ".join(f"a {name} set" for name in ("validation", "test") if name in info.own)
    test = f"{own} of its own" if own else "no test set: augbench splits"
    facts = [
        f"{len(counts)} classes, {sum(counts.values())} images to train on, {test}.",
        _sizes(counts),
        f"Shorter sides of {len(info.sides)} images: {_range(info.sides)}.",
        *([f"Ignored: {info.ignored}."] if info.ignored else []),
    ]
    price = [
        f"{cost['training']:.0f} training images; each generating method makes {cost['images']:.0f} images, "
        f"about {_hours(cost['hours'])} of a T4 and {cost['gigabytes']:.1f} GB; {generating} of the methods do.",
        f"Each method trains {study['runs']} classifiers, about {_hours(cost['classifier_hours'])} of a T4.",
        f"Fine-tuning a method would take up to {_hours(cost['finetuning_hours'])} of a V100.",
    ]
    lines = [
        *_editor_line(folder),
        f"# A study of {_plain(info.target.path)}, written by `make new-study`; every key is in config/README.md.",
        "#",
        f"#   snakemake --configfile config/{name}.yaml -n     # the plan",
        f"#   snakemake --configfile config/{name}.yaml        # all of it",
        "#",
        *(f"# {_plain(line)}" for line in facts),
        "#",
        "# What it costs, by the GPU-hours of the paper:",
        *(f"# {_plain(line)}" for line in price),
        "studies:",
        f"  {name}:",
    ]
    comments = {
        "methods": "rows of config/methods.yaml",
        "dataset": "shares of each class; take less for training, and add `more_real`, to see what more data would do",
        "backbone": "fetched at the first run; or a local diffusers folder",
        "generate": "Stable Diffusion v1.4 was trained on 512 pixels",
        "drop_leaks": "images that may be copies of validation or test images are not added",
        "classifier": "size and network follow from the images; with few images try other learning rates",
    }
    for key, block in dump.items():
        if key in comments:
            lines.append(f"    # {comments[key]}")
        lines += [f"    {line}" for line in block.splitlines()]
        if key == "methods":
            lines += [
                "    # Retrieval, the paper's best, needs a pool of images: uncomment the lines below, name it, and",
                "    # add `- retrieval` to the list. Fine-tuned methods: `- textual_inversion`, `- pseudoword_dm`.",
                "    # clip: {model: ViT-L/14} # the CLIP of the index",
                "    # pool: {source: index, path: FOLDER} # or folder, shards, urls, service: see docs/pools.md",
                "    # Images that another tool made are a method as well: see docs/methods.md.",
            ]
    return "\n".join(lines) + "\n"


def _editor_line(folder: str | Path) -> list[str]:
    """The line that tells editors by which schema they complete and check keys; none where the checkout is not here."""
    schema = Path(__file__).parents[3] / "config" / "schema.json"
    if not schema.is_file():
        return []
    return [f"{EDITOR}{_plain(Path(os.path.relpath(schema, folder)).as_posix())}"]


def _sizes(counts: Mapping[str, int]) -> str:
    """How many images the classes have, as a sentence."""
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] == counts[least]:
        return f"Each class has {counts[most]} of them."
    return (
        f"The largest class is {most!r} ({counts[most]}), the smallest {least!r} ({counts[least]}), "
        f"{counts[most] / counts[least]:.1f} times smaller."
    )


def _range(sides: Sequence[int]) -> str:
    """Sorted lengths in words."""
    if sides[0] == sides[-1]:
        return f"{sides[0]} pixels"
    return f"{sides[0]} to {sides[-1]} pixels, {sides[len(sides) // 2]} in the median"


def _block(key: str, value) -> str:
    """A key in YAML, a section on one line."""
    flow = None if isinstance(value, dict) else False
    return yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=flow, allow_unicode=True, width=1e9).strip()


def _plain(words: str) -> str:
    """Text from file names as part of a comment's line."""
    return "".join(c if c.isprintable() else "?" for c in words)


def _hours(hours: float) -> str:
    return f"{hours:.0f} hours" if hours >= 2 else f"{60 * hours:.0f} minutes"


def write(path: str, name: str, folder: str | Path = "config", top_folders: str | None = None) -> Path:
    """Write ``folder``/NAME.yaml. Raises ValueError, ConfigError (what a plan
    would refuse) or FileExistsError with one sentence; overwrites nothing."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.]*", name):
        raise ValueError(f"NAME={name} may hold letters, digits, _ and . only, e.g. NAME=birds")
    file = Path(folder) / f"{name}.yaml"
    if file.exists():
        raise FileExistsError(f"{file} exists already; choose another NAME or remove it")
    info = examine(path, top_folders)
    study = config.Study.model_validate(suggestion(info))
    checks.check_target(study, f"studies.{name}", prompted=True, further=None)
    configuration = text(name, info, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "x", encoding="utf-8") as handle:  # also when another has just written it
        handle.write(configuration)
    return file


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m augbench.jobs.new_study", description="Write config/NAME.yaml.")
    shapes = "folder with train/CLASS/*.jpg (test/CLASS/*.jpg), or CLASS/*.jpg; or a list, or Hugging Face's Parquet"
    parser.add_argument("images", help=shapes)
    parser.add_argument("name", help="of the study, e.g. birds")
    parser.add_argument("--folders", choices=["splits", "classes"], help="what the top folders are")
    options = parser.parse_args(arguments)
    try:
        path = write(options.images, options.name, top_folders=options.folders)
    except (ValueError, OSError, config.ConfigError) as error:
        asked = " (`make new-study` takes it as FOLDERS=...)" if "`folders: " in str(error) else ""
        sys.exit(f"{error}{asked}")
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line[2:] for line in lines if line.startswith("# ") and not line.startswith(EDITOR)]
    print("\n".join(head[1:]), f"\nwritten: {path}", sep="\n")


if __name__ == "__main__":
    main()
