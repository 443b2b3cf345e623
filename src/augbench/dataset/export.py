"""Exports an augmented data set, real and added training images, in the layouts that other software reads."""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml

from augbench import images
from augbench.core.files import read_json, whole, write_csv
from augbench.core.seeds import generator

FORMATS = ("folder", "webdataset", "huggingface")
PER_SHARD = 1000  # images
NAME = 100  # characters of a folder's name
# Formats of images that leave as they came, with the extension by which readers know them; others leave as PNG.
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif"}
# Columns of provenance.
NO_NAME = re.compile(r"[^\w@./:+() -]")  # what has a meaning in a card
FACTS = ("method", "prompt", "seed", "candidate", "cluster", "start_image", "url", "similarity", "sha256", "model")
FACTS += ("licence",)
SOURCES = ("file", "class", "origin", "method", "url", "sha256", "model", "licence")  # columns of sources.csv


def export(
    form: str,
    train: pd.DataFrame,
    added: pd.DataFrame,
    classes: Sequence[Mapping],
    folder: str | Path,
    card_info: Mapping[str, str],
    classifier: str | Path | None = None,
) -> None:
    """Write the training images and those that a method adds as the folder ``folder``, whole or not at all.

    ``folder``: ``train/CLASS/*``, as ``torchvision.datasets.ImageFolder`` reads it; ``webdataset``: shuffled
    ``train-NNNNNN.tar`` with image, ``cls`` (label) and ``json``; ``huggingface``: an ``imagefolder`` with
    ``metadata.jsonl`` and a card. Each has ``classes.csv``: label, folder, class, lemmas; and ``sources.csv``, a row of
    SOURCES for each image. Labels are positions of the folders in alphabetical order. One image at a time is in memory;
    JPEG, PNG, WebP, BMP and TIFF keep their bytes.

    Parameters
    ----------
    train, added : image tables; classes : rows with class and lemmas; images of other classes are left out
    card_info : for the card: study, method, ratio and text on it
    classifier : metrics of a classifier whose pretrained weights had a say in which images are added; the card names
        them

    Raises ValueError naming an image that cannot be read.
    """
    names = folder_names([row["class"] for row in classes])
    order = sorted(names.values())
    labels = {key: order.index(name) for key, name in names.items()}
    table = _joined(train, added, names)
    with whole(folder) as temporary:
        temporary.mkdir()
        if form == "webdataset":
            sources = _write_shards(temporary, table, labels, names)
        else:
            sources = _write_folders(temporary, table, names, with_metadata=form == "huggingface")
        write_csv(temporary / "sources.csv", pd.DataFrame(sources, columns=list(SOURCES)))
        if form == "huggingface":
            weights = read_json(classifier)["weights"] if classifier else None
            (temporary / "README.md").write_text(_card(table, len(names), card_info, weights), encoding="utf-8")
        rows = [{"label": labels[row["class"]], "folder": names[row["class"]], **row} for row in classes]
        known = pd.DataFrame(rows)[["label", "folder", "class", "lemmas"]].sort_values("label")
        write_csv(temporary / "classes.csv", known)


def folder_names(keys: Sequence[str]) -> dict[str, str]:
    """A name for a folder for each class: its key, as far as that is safe on every disk, and unlike all others.

    Letters of all scripts stay; what could lead elsewhere (separators, leading dots) or is reserved becomes ``_``.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for key in keys:
        plain = re.sub(r"[^\w .,()+-]", "_", unicodedata.normalize("NFC", key))[:NAME]
        plain = re.sub(r"^[. -]|[. ]$", "_", plain) or "_"
        while len(plain.encode()) > 200:
            plain = plain[:-1]
        name, number = plain, 2
        while name.casefold() in taken:
            name, number = f"{plain}-{number}", number + 1
        taken.add(name.casefold())
        names[key] = name
    return names


def _joined(train: pd.DataFrame, added: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    parts = [table.assign(origin=origin) for origin, table in (("real", train), ("added", added)) if len(table)]
    table = pd.concat(parts, ignore_index=True)
    table = table[table["class"].isin(list(names))].reset_index(drop=True)
    # By number: nothing from data is a part of a file's name.
    return table.assign(name=[f"{origin}-{i:07d}" for i, origin in enumerate(table["origin"])])


def _encoded(rows) -> Iterator[tuple]:
    """Rows with extension and bytes of their images."""
    import io

    from PIL import Image

    for row in rows:
        data = images.load_bytes(row)
        try:
            with Image.open(io.BytesIO(data)) as opened:
                extension = EXTENSIONS.get(opened.format)
        except Exception as error:
            raise ValueError(f"cannot read {row.image_id}: {error}") from error
        if extension is None:
            extension, data = "png", images.encode_png(images.decode(data, row.image_id))
        yield row, extension, data


def _facts(row) -> dict:
    """What is known of an image, as plain values."""
    facts = {name: getattr(row, name) for name in FACTS}
    facts = {
        name: value.item() if hasattr(value, "item") else value for name, value in facts.items() if pd.notna(value)
    }
    return {"class": row._class, "origin": row.origin, "image_id": row.image_id, **facts}


def _rows(table: pd.DataFrame) -> Iterator:
    """Rows as attributes; ``class``, a reserved word in Python, is ``_class``."""
    from types import SimpleNamespace

    for values in table.rename(columns={"class": "_class"}).to_dict("records"):
        yield SimpleNamespace(**{str(name): value for name, value in values.items()})


def _write_folders(folder: Path, table: pd.DataFrame, names: Mapping[str, str], with_metadata: bool) -> list[dict]:
    """Returns the rows of ``sources.csv``."""
    for name in names.values():
        (folder / "train" / name).mkdir(parents=True)
    lines = []
    for row, extension, data in _encoded(_rows(table)):
        place = f"{names[row._class]}/{row.name}.{extension}"
        (folder / "train" / place).write_bytes(data)
        lines.append({"file_name": place, "label": names[row._class], **_facts(row)})
    if with_metadata:
        keys = ["file_name", "label", "class", "origin", "image_id", *FACTS]
        with open(folder / "train" / "metadata.jsonl", "w", encoding="utf-8") as handle:
            # The same keys in each line, as readers want it.
            handle.writelines(
                json.dumps({key: line.get(key) for key in keys}, ensure_ascii=False) + "\n" for line in lines
            )
    return [{"file": f"train/{line['file_name']}"} | line for line in lines]


def _write_shards(folder: Path, table: pd.DataFrame, labels: Mapping[str, int], names: Mapping[str, str]) -> list[dict]:
    """Returns the rows of ``sources.csv``."""
    sources = []
    table = table.iloc[generator("export", len(table)).permutation(len(table))]
    for number, start in enumerate(range(0, len(table), PER_SHARD)):
        name = f"train-{number:06d}.tar"
        with images.ShardWriter(folder / name) as shard:
            for row, extension, data in _encoded(_rows(table.iloc[start : start + PER_SHARD])):
                facts = {"folder": names[row._class]} | _facts(row)
                shard.add(row.name, {extension: data, "cls": str(labels[row._class]), "json": facts}, image=extension)
                sources.append({"file": f"{name}/{row.name}.{extension}"} | facts)
    return sources


def _card(table: pd.DataFrame, classes: int, card_info: Mapping[str, str], weights: Mapping | None) -> str:
    """A dataset card; nothing in it but numbers, what the configuration says, and the names of models and licences."""
    counts = table["origin"].value_counts()
    head = {
        "pretty_name": f"{card_info['study']}, augmented by {card_info['title']}",
        "task_categories": ["image-classification"],
        "tags": ["augbench", card_info["method"]],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train/**"}]}],
    }
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n# {head['pretty_name']}\n\n"
        f"{counts.get('real', 0)} real and {counts.get('added', 0)} added training images of {classes} classes, at "
        f"augmentation ratio {card_info['ratio']}: the set that the first classifier run of the study was trained on."
        "\n\n"
        "`train/metadata.jsonl` says of each image its class, whether it is real or added (`origin`), and where it "
        "comes from: prompt and seed of a generated one, the training image that it begins from (`start_image`), URL "
        "and similarity of a retrieved one. `classes.csv` has the names of the classes, `sources.csv` the source and "
        "licence of every image, as far as they are known.\n\n"
        "Retrieved images are other people's: whoever passes them on needs the right to do so. "
        f"Generated ones are under the terms of the model that made them{_terms(table)}.\n{_chosen_by(weights)}"
    )


def _chosen_by(weights: Mapping | None) -> str:
    """The pretrained weights of the classifiers that chose among images."""
    if weights is None:
        return ""
    facts = {"revision": weights["revision"], "SHA-256": weights["sha256"], "licence": weights["licence"] or "unknown"}
    known = ", ".join(f"{key}: {NO_NAME.sub('_', str(value))}" for key, value in facts.items() if value)
    return (
        "\nWhich images were added was decided with the help of a classifier that began with the weights "
        f"{NO_NAME.sub('_', str(weights['name']))} ({known}).\n"
    )


def _terms(table: pd.DataFrame) -> str:
    """The models that made images, with their licences as far as these are known."""
    pairs = table[["model", "licence"]].dropna(subset="model").drop_duplicates().sort_values("model")
    licences = [
        f"licence: {licence}" if isinstance(licence, str) else "licence unknown" for licence in pairs["licence"]
    ]
    names = [f"{model} ({licence})" for model, licence in zip(pairs["model"], licences, strict=True)]
    return f": {', '.join(NO_NAME.sub('_', name) for name in names)}" if names else ""
