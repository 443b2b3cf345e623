"""Photos of native size in the layouts that people have, with the odd files that are found among them.

With AUGBENCH_PHOTOS, a folder of class folders of real photos, the same is done to copies of these.
"""

import csv
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from torchvision.datasets import ImageFolder

from augbench import images
from augbench.core import package_data
from augbench.dataset import checks, splits
from augbench.dataset.class_table import class_table
from augbench.study.config import Dataset, Target

SIZE = (400, 300)
RED, BLUE = (200, 40, 30), (30, 60, 200)


def two_colours(size=SIZE):
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", size, BLUE)
    picture.paste(RED, (0, 0, size[0] // 2, size[1]))
    return picture


def odd_files() -> dict[str, tuple[bytes, str]]:
    """Name -> bytes, and what the decoded picture must be."""

    def saved(picture, kind, **options):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        return buffer.getvalue()

    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned: to be shown a quarter turn to the right
    plain = two_colours()
    return {
        "grey": (saved(plain.convert("L"), "JPEG"), "grey"),
        "cmyk": (saved(plain.convert("CMYK"), "JPEG", quality=95), "colours"),
        "palette": (saved(plain.quantize(8), "PNG"), "colours"),
        "disguised": (saved(plain, "PNG"), "colours"),
        "rotated": (saved(plain, "JPEG", exif=turned, quality=95), "upright"),
    }


def looks_right(picture, expected: str) -> bool:
    pixels = np.asarray(picture).astype(int)

    def close(y, x, colour):
        return abs(pixels[int(y * pixels.shape[0]), int(x * pixels.shape[1])] - np.array(colour)).max() < 40

    if expected == "grey":
        return picture.mode == "RGB" and (pixels[..., 0] == pixels[..., 2]).all() and picture.size == SIZE
    if expected == "upright":  # what was on the left is above
        return picture.size == SIZE[::-1] and close(0.1, 0.5, RED) and close(0.9, 0.5, BLUE)
    return picture.size == SIZE and close(0.5, 0.1, RED) and close(0.5, 0.9, BLUE)


@pytest.fixture(scope="module", params=["made", "real"])
def photos(request, tmp_path_factory) -> dict[str, list[Path]]:
    """Class -> photos: made ones, or those that AUGBENCH_PHOTOS names."""
    if request.param == "real":
        if "AUGBENCH_PHOTOS" not in os.environ:
            pytest.skip("AUGBENCH_PHOTOS names no folder of class folders of real photos")
        folders = sorted(folder for folder in Path(os.environ["AUGBENCH_PHOTOS"]).iterdir() if folder.is_dir())
    else:
        root = tmp_path_factory.mktemp("photos")
        for number, key in enumerate(("hat", "long-sleeve", "shoes")):
            (root / key).mkdir()
            for i in range(12):
                noise = np.random.default_rng((number, i)).integers(0, 256, (6, 8, 3), np.uint8)
                Image.fromarray(noise).resize((640, 480)).save(root / key / f"{i:02d}.jpg")
        folders = sorted(root.iterdir())
    found = {folder.name: sorted(file for file in folder.iterdir() if file.is_file()) for folder in folders}
    assert len(found) >= 2
    return found


def ilsvrc(photos, root: Path) -> tuple[Target, dict[str, str]]:
    """As ImageNet: two of three photos in train/WNID, the others in a flat val. Returns class -> wnid as well."""
    with open(package_data.bundled("imagenet_synsets.csv"), newline="") as handle:
        wnids = dict(zip(photos, [row["class"] for row in csv.DictReader(handle)], strict=False))
    rows = []
    for key, files in photos.items():
        (root / "train" / wnids[key]).mkdir(parents=True)
        (root / "val").mkdir(exist_ok=True)
        for i, file in enumerate(files):
            if i % 3:
                shutil.copy(file, root / "train" / wnids[key] / f"{wnids[key]}_{i}.JPEG")
            else:
                name = f"ILSVRC2012_val_{len(rows) + 1:08d}"
                shutil.copy(file, root / "val" / f"{name}.JPEG")
                rows.append(f"{name},{wnids[key]} 1 2 3 4")
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))
    first = root / "train" / next(iter(wnids.values()))
    for name, (data, _) in odd_files().items():
        (first / f"{name}.JPEG").write_bytes(data)
    given = Target(reader="imagenet", path=str(root), ground_truth=str(root / "LOC_val_solution.csv"))
    return given, wnids


def caltech256(photos, root: Path) -> Target:
    for number, (key, files) in enumerate(photos.items(), 1):
        folder = root / "256_ObjectCategories" / f"{number:03d}.{key}"
        folder.mkdir(parents=True)
        for i, file in enumerate(files, 1):
            shutil.copy(file, folder / f"{number:03d}_{i:04d}.jpg")
        if number == 1:
            for name, (data, _) in odd_files().items():
                (folder / f"{name}.jpg").write_bytes(data)
    (root / "256_ObjectCategories" / "257.clutter").mkdir()
    (root / "256_ObjectCategories" / "257.clutter" / "257_0001.jpg").write_bytes(b"not even an image")
    return Target(reader="caltech256", path=str(root))


def odd_ones_look_right(table) -> None:
    rows = {Path(row.path).stem: row for row in table.itertuples()}
    for name, (_, expected) in odd_files().items():
        assert looks_right(images.load(rows[name]), expected), name


def test_photos_as_imagenet(photos, tmp_path):
    given, wnids = ilsvrc(photos, tmp_path)
    checks.check(given)
    table = splits.split(given, Dataset(train=0.4, validation=0.2), seed=1)
    assert len(table) == sum(map(len, photos.values())) + len(odd_files())
    tests = table[table["split"] == "test"].groupby("class").size().to_dict()
    assert tests == {wnids[key]: -(-len(files) // 3) for key, files in photos.items()}
    odd_ones_look_right(table)


def test_photos_as_caltech256(photos, tmp_path):
    given = caltech256(photos, tmp_path)
    checks.check(given)
    table = splits.split(given, Dataset(train=0.8, validation=0.1, test=0.1), seed=1)
    names = class_table(given)
    assert names["lemmas"].to_list() == [key.replace("-", " ") for key in photos]
    assert len(table) == sum(map(len, photos.values())) + len(odd_files())
    assert not (table["split"] == "unused").any()
    odd_ones_look_right(table)


@pytest.mark.slow
def test_a_study_of_photos_and_its_export(photos, clone):
    """From ImageNet's layout to Table 1 and an image folder; every odd file goes through classifier and audit."""
    fresh = clone()
    ilsvrc(photos, fresh.folder / "data")
    study = {
        "methods": ["none", "more_real"],
        "runs": 1,
        "target": {"reader": "imagenet", "path": "data", "ground_truth": "data/LOC_val_solution.csv"},
        "dataset": {"train": 0.4, "validation": 0.2},
        "classifier": {
            "model": "small_cnn",
            "image_size": 64,
            "batch_size": 16,
            "learning_rate": 0.05,
            "max_epochs": 1,
        },
    }
    (fresh.folder / "photos.yaml").write_text(yaml.safe_dump({"studies": {"photos": study}}))
    wanted = ["results/photos/tables/table1.csv", "results/photos/export/more_real/folder"]
    code, output = fresh.snakemake("--configfile", "photos.yaml", "--cores", "1", "--", *wanted)
    assert code == 0, output
    results = fresh.folder / "results" / "photos"
    assert list(pd.read_csv(results / "tables" / "table1.csv")["method"]) == ["none", "more_real"]
    read = ImageFolder(results / "export" / "more_real" / "folder" / "train")
    both = [images.read(results / "dataset" / f"{split}.parquet") for split in ("train", "more_real")]
    assert len(read) == sum(map(len, both))
    originals = sorted((fresh.folder / path).read_bytes() for table in both for path in table["path"])
    assert sorted(Path(path).read_bytes() for path, _ in read.samples) == originals
