"""How fast photos come to the classifier in training, against a plain torchvision loader in the same run.

    python benchmarks/classifier.py           # makes 96 photos of 1600 x 1200 pixels itself
    python benchmarks/classifier.py FOLDER    # class folders of JPEGs

Both sides read the same files with as many workers and give random crops of 224 pixels, half of them mirrored, as
uint8 batches; ours once from files and once from a tar, and from files with each augment of images. They run in turn,
so that the machine's speed cancels.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from augbench import images
from augbench.classifier import augmenting
from augbench.classifier.crops import Batches, training_batches
from augbench.study.augments import AUGMENTS

SIDE, SCALE, BATCH, ROUNDS = 224, (0.08, 1.0), 32, 5


def make_photos(folder: Path, count: int) -> None:
    """JPEGs of 1600 x 1200 pixels in two classes: smooth shapes with noise, of about 0.4 MB as a camera's."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 6, (1200, 1600, 3))
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((1600, 1200))
        pixels = np.asarray(coarse) + np.roll(noise, random.integers(1200), 0)
        path = folder / ("cat", "dog")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=85)


def table_of(folder: Path) -> pd.DataFrame:
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"{folder} has no class folders with JPEGs")
    return images.table({"image_id": str(path), "class": path.parent.name, "path": str(path)} for path in files)


def packed(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The same photos in a tar."""
    rows = []
    with images.ShardWriter(path) as shard:
        for i, row in enumerate(table.itertuples()):
            offset, length = shard.add(f"{i:06d}", {"jpg": images.load_bytes(row)}, image="jpg")
            rows.append({"image_id": row.image_id, "class": row[2], "path": str(path)})
            rows[-1] |= {"offset": offset, "length": length}
    return images.table(rows)


def ours(data: Batches, epoch: int) -> float:
    """Images per second of an epoch; the first one starts the workers."""
    order = np.random.default_rng(epoch).permutation(len(data))
    start = time.perf_counter()
    seen = sum(
        len(batch)
        for batch in data.stream([(epoch, part, part) for part in np.split(order, range(BATCH, len(order), BATCH))])
    )
    assert seen == len(data)
    return seen / (time.perf_counter() - start)


def plain_loader(folder: Path, workers: int):
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.RandomResizedCrop(SIDE, SCALE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    data = ImageFolder(folder, transforms.Compose(steps))
    return DataLoader(data, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def plain(loader) -> float:
    start = time.perf_counter()
    seen = sum(len(batch) for batch, _ in loader)
    return seen / (time.perf_counter() - start)


def measure(folder: Path, workers: int) -> None:
    table = table_of(folder)
    with tempfile.TemporaryDirectory() as name:
        tables = {"files": table, "tar": packed(table, Path(name) / "photos.tar")}
        sides = {
            what: training_batches(photos, SIDE, SCALE, True, (0, "benchmark"), workers)
            for what, photos in tables.items()
        }
        for name, augment in AUGMENTS.items():
            if not augment.mixes_batches:
                changed = augmenting.of_images(augment, (0, "benchmark"))
                sides[name] = training_batches(table, SIDE, SCALE, True, (0, "benchmark"), workers, changed)
        loader = plain_loader(folder, workers)
        assert len(loader.dataset) == len(table)
        speeds = {what: [] for what in (*sides, "plain")}
        for epoch in range(ROUNDS + 1):  # the first warms up
            round_speeds = {what: ours(data, epoch) for what, data in sides.items()} | {"plain": plain(loader)}
            if epoch:
                print(
                    "  " + ", ".join(f"{what} {speed:.0f}" for what, speed in round_speeds.items()) + " images/s",
                    flush=True,
                )
                for what, speed in round_speeds.items():
                    speeds[what].append(speed)
    for what in sides:
        other = "plain" if what in tables else "files"
        ratios = [a / b for a, b in zip(speeds[what], speeds[other], strict=True)]
        print(
            f"  {what} against {other}: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}); "
            f"{statistics.median(speeds[what]):.0f} against {statistics.median(speeds[other]):.0f} images/s"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="class folders of JPEGs")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {options.workers} workers, crops of {SIDE} pixels", flush=True
    )
    if options.folder:
        measure(options.folder, options.workers)
    else:
        with tempfile.TemporaryDirectory() as photos:
            make_photos(Path(photos), 96)
            measure(Path(photos), options.workers)
