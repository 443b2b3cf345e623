"""How fast photos come to the classifier in training, against a plain torchvision loader in the same run.

    python benchmarks/classifier.py           # makes 96 photos of 1600 x 1200 pixels itself
    python benchmarks/classifier.py FOLDER    # class folders of JPEGs
    python benchmarks/classifier.py --score timm/resnet18   # instead: how fast a network scores photos

Both sides read the same files with as many workers and give random crops of 224 pixels, half of them mirrored, as
uint8 batches; ours once from files and once from a tar, and from files with each augment of images. They run in turn,
so that the machine's speed cancels.

With `--score` a network with random weights scores the photos, and takes features of them for a probe: ours against a
loop over a DataLoader with as many workers (as timm's validate.py), and against a plain loop that reads one photo after
the other and takes them in batches of the same size; both with timm's own transform, both with all cores.
"""

import argparse
import functools
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
from augbench.classifier.features import encode
from augbench.classifier.networks import Network
from augbench.classifier.scoring import evaluation_batches
from augbench.study.augments import AUGMENTS
from augbench.study.sections.classifier import Classifier

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
        compare(speeds, what, "plain" if what in tables else "files")


def compare(speeds: dict, what: str, other: str) -> None:
    ratios = [a / b for a, b in zip(speeds[what], speeds[other], strict=True)]
    print(
        f"  {what} against {other}: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"{statistics.median(speeds[what]):.1f} against {statistics.median(speeds[other]):.1f} images/s"
    )


class Photos:
    """What a DataLoader takes: photos as timm's transform gives them."""

    def __init__(self, paths: list, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, place: int):
        return self.transform(Image.open(self.paths[place]).convert("RGB"))


def measure_scoring(folder: Path, workers: int, model: str) -> None:
    import timm
    import torch
    from timm import data
    from torch.utils.data import DataLoader

    table = table_of(folder)
    network = Network(Classifier(model=model, image_size=None), 10)
    theirs = timm.create_model(model.removeprefix("timm/"), num_classes=10)
    theirs.load_state_dict(network.module.state_dict())
    theirs.eval()
    photos = Photos(
        list(table["path"]), data.create_transform(**data.resolve_model_data_config(theirs), is_training=False)
    )

    def plain_loop(compute):
        parts = [range(start, min(start + BATCH, len(photos))) for start in range(0, len(photos), BATCH)]
        return torch.cat([compute(torch.stack([photos[place] for place in part])) for part in parts])

    def loader():
        return torch.cat([theirs(batch) for batch in DataLoader(photos, BATCH, num_workers=workers)]).argmax(1)

    def features(batch):
        return theirs.forward_head(theirs.forward_features(batch), pre_logits=True)

    sides = {
        "scores": lambda: network.predict(evaluation_batches(table, network.view, workers))[0],
        "loader": loader,
        "features": lambda: torch.from_numpy(encode(network, table, workers)),
        "plain loop": lambda: plain_loop(features),
    }
    speeds, results = {what: [] for what in sides}, {}
    for epoch in range(ROUNDS + 1):  # the first warms up
        for what, side in sides.items():
            with torch.inference_mode():
                start = time.perf_counter()
                results[what] = side()
                speed = len(photos) / (time.perf_counter() - start)
            if epoch:
                speeds[what].append(speed)
    assert torch.equal(results["scores"], results["loader"])
    assert torch.allclose(results["features"], results["plain loop"], atol=1e-3)
    compare(speeds, "scores", "loader")
    compare(speeds, "features", "plain loop")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="class folders of JPEGs")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--score", metavar="MODEL", help="a network of timm that scores the photos")
    options = parser.parse_args()
    run = functools.partial(measure_scoring, model=options.score) if options.score else measure
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {options.workers} workers, crops of {SIDE} pixels", flush=True
    )
    if options.folder:
        run(options.folder, options.workers)
    else:
        with tempfile.TemporaryDirectory() as photos:
            make_photos(Path(photos), 96)
            run(Path(photos), options.workers)
