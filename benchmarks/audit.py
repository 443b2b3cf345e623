"""The audit: search against bare faiss, hashing against a loop of imagehash, detectors against people's judgement.

`python benchmarks/audit.py search` compares random hashes, `... hashing` hashes pictures that it makes, or those of
`--folder`. `... detectors PAIRS.csv` needs pairs that people judged (columns test_path and train_path, relative to
`--images`); without them it is not run. Its second detector is `--model`, or one that it trains on the training images
without their labels, see copy_model.py. All print what they measured; equality is asserted.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from augbench.audit import duplicates, hashes
from augbench.core import files
from augbench.dataset import references

RADII = range(0, 25, 2)  # bits
LEAST = 0.5  # cosine similarity
SIDE = 288  # pixels, of what a TorchScript model is given


def search(scale: float) -> None:
    """All pairs of 1.28 million x 400,000 random hashes, times ``scale`` each, on two cores."""
    import faiss

    random = np.random.default_rng(0)
    a, b = (random.integers(0, 2**64, int(scale * size), dtype=np.uint64) for size in (1_280_000, 400_000))
    b[:1000] = a[-1000:] ^ np.uint64(0b10110)  # beside pairs by chance, some that are close
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.monotonic()
    i, j, _ = duplicates.pairs(a, b, threads=2)
    ours = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = random.choice(len(a), 100, replace=False)
    rows[:10] = len(a) - 1 - np.arange(10)
    for row in rows:
        true = np.flatnonzero(np.bincount(np.nonzero(_bits(a[row] ^ b))[0], minlength=len(b)) < duplicates.RADIUS)
        assert set(j[i == row]) == set(true)
    print(f"{len(a):,} x {len(b):,}: {len(i):,} pairs in {ours:.1f} s; a subset is brute force's", flush=True)
    print(f"  largest memory {before:.0f} MB before, {after:.0f} MB after", flush=True)
    index = faiss.IndexBinaryFlat(64)
    index.add(b.view(np.uint8).reshape(-1, 8))
    faiss.omp_set_num_threads(2)
    start = time.monotonic()
    limits, _, _ = index.range_search(a.view(np.uint8).reshape(-1, 8), duplicates.RADIUS)
    theirs = time.monotonic() - start
    assert limits[-1] == len(i)
    print(f"faiss alone: {theirs:.1f} s; augbench takes {ours / theirs:.2f}x of it")


def _bits(words: np.ndarray) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1)


def hash_speed(folder: Path | None) -> None:
    """JPEGs a second on one core, ours and a loop's, in turns; the same bits."""
    with tempfile.TemporaryDirectory() as name:
        if folder is None:
            folder = Path(name)
            random = np.random.default_rng(0)
            for number in range(100):
                picture = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8))
                picture.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
        table = references.folder_table(folder)
        best = {"ours": np.inf, "loop": np.inf, "floor": np.inf}
        for _ in range(5):
            start = time.process_time()
            ours = hashes.hashes(table)
            middle = time.process_time()
            loop = [imagehash.phash(Image.open(path)) for path in table["path"]]
            best["ours"] = min(best["ours"], middle - start)
            end = time.process_time()
            best["loop"] = min(best["loop"], end - middle)
            for path in table["path"]:  # what no hash of the same bits can do without
                Image.open(path).convert("L").resize((hashes.SIDE, hashes.SIDE), Image.Resampling.LANCZOS)
            best["floor"] = min(best["floor"], time.process_time() - end)
        assert [f"{int(value):016x}" for value in ours] == [str(value) for value in loop]
    rate = {name: len(table) / seconds for name, seconds in best.items()}
    print(f"{len(table)} images, bit for bit the same: {rate['ours']:.0f}/s, a loop of imagehash {rate['loop']:.0f}/s;")
    limit = rate["floor"] / rate["loop"]
    print(f"  {rate['ours'] / rate['loop']:.2f}x; Pillow's decoding and resizing alone would be {limit:.2f}x")


def detectors(pairs: Path, folder: Path, model: str | None) -> None:
    """Precision and recall over radii (bits), and over similarities where a TorchScript model is given."""
    import copy_model
    import pandas as pd

    from augbench.models import clip, copy_detectors

    judged = pd.read_csv(pairs)
    test, train = (references.folder_table(folder / part) for part in ("test", "train"))
    where = [dict(zip(part + "/" + table["image_id"], range(len(table)), strict=True))
             for part, table in (("test", test), ("train", train))]  # fmt: skip
    truth = {
        (where[0][row.test_path], where[1][row.train_path])
        for row in judged.itertuples()
        if row.test_path in where[0] and row.train_path in where[1]
    }
    print(f"{len(test):,} x {len(train):,} images, {len(truth)} pairs that people call duplicates")
    a, b = hashes.hashes(test), hashes.hashes(train)
    curves = {"perceptual hash": [], "embedding": []}
    i, j, distance = duplicates.pairs(a, b, max(RADII) + 1, threads=2)
    for radius in RADII[1:]:
        near = distance < radius
        curves["perceptual hash"].append((radius, *_judge(set(zip(i[near], j[near], strict=True)), truth)))
    with tempfile.TemporaryDirectory() as name:
        if not model:
            model = str(Path(name, "copies.pt"))
            copy_model.train(train, Path(model))
        embed = copy_detectors.scripted(model, SIDE) if Path(model).is_file() else clip.Clip(model).pictures
        vectors = [clip.embed(table, embed, lambda *_: None) for table in (test, train)]
    near = list(zip(*duplicates.alike(*vectors, LEAST), strict=True))
    likeness = np.array([vectors[0][i] @ vectors[1][j] for i, j in near])
    for at in np.arange(LEAST, 1, 0.05):
        candidates = {pair for pair, like in zip(near, likeness, strict=True) if like >= at}
        curves["embedding"].append((at, *_judge(candidates, truth)))
    for name, points in curves.items():
        for at, precision, recall, count in points:
            print(f"{name} {at:g}: {count} candidates, precision {precision:.1%}, recall {recall:.1%}")
    _draw(curves, Path(__file__).parent / "audit.svg")


def _judge(candidates: set, truth: set) -> tuple[float, float, int]:
    right = len(candidates & truth)
    return right / len(candidates) if candidates else 1.0, right / len(truth), len(candidates)


def _draw(curves: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.5, 4), layout="constrained")
    for name, points in curves.items():
        axes.plot([point[2] for point in points], [point[1] for point in points], "o-", label=name)
        for at, precision, recall, _ in points:
            axes.annotate(f"{at:g}", (recall, precision), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend()
    with files.whole(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("search").add_argument("--scale", type=float, default=1.0, help="of both sets")
    what.add_parser("hashing").add_argument("--folder", type=Path, help="of images, instead of made ones")
    detect = what.add_parser("detectors")
    detect.add_argument("pairs", type=Path)
    detect.add_argument("--images", type=Path, required=True, help="folder with test and train")
    detect.add_argument("--model", help="a TorchScript file, or a CLIP as clip-retrieval names it; else one is trained")
    options = parser.parse_args()
    if options.what == "search":
        search(options.scale)
    elif options.what == "hashing":
        hash_speed(options.folder)
    else:
        detectors(options.pairs, options.images, options.model)


if __name__ == "__main__":
    main()
