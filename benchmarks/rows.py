"""The memory of stages that hold tables of a study, at the paper's row counts, against what their rules ask for.

    python benchmarks/rows.py                     # every stage in full: an hour, 15 GB of disk
    python benchmarks/rows.py audit resample --scale 0.01

Each runs the rule's own code on made tables, in a process of its own. What takes time for each image and no memory is
left out or done on a few pixels: pictures are not decoded, and nothing is downloaded. Fails where a stage takes more
memory than its rule asks for.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from augbench import images
from augbench.core import files
from augbench.jobs import resources

SHARD = "results/imagenet/images/pseudoword_dm/base/shard-#.tar"
URL = "https://images.example.org/some-folder-of-pictures/some-name-#.jpg"
CLASSES = 1000
SPLIT = 1_153_000  # training images of full ImageNet, and of a set that a method adds
GENERATED = 3_900_000  # images of a method there, from which its sets are drawn
SETS = 14  # of which all have 16 million rows
RUNS = 5
TEST = 50_000
NEIGHBOURS = 10_000  # of each class: ten million
PROCESSES = 8
OUTPUTS = ("ledger.parquet", "images.tar", "images.parquet", "funnel.csv", "hosts.csv")  # of a retrieval
SMALL = {"model": "small_cnn", "image_size": 8, "batch_size": 512, "max_epochs": 1, "threads": 1}


# --- made tables ----------------------------------------------------------------------------------------


def scaled(count: int, scale: float) -> int:
    return max(1, round(count * scale))


def texts(form: str, numbers: np.ndarray) -> pa.Array:
    """``form`` with each number in the place of its ``#``."""
    before, after = form.split("#")
    return pc.call_function("binary_join_element_wise", [before, pc.cast(pa.array(numbers), pa.string()), after, ""])


def keys(numbers: np.ndarray) -> pa.Array:
    return texts("n#", 10_000_000 + numbers % CLASSES)


def rows_of(numbers: np.ndarray, name: str, path: str = SHARD, url: str | None = None) -> pa.Table:
    """Image rows as a diffusion model's: ids, shards, prompts and seeds of the usual lengths; URLs as of a pool."""
    count = len(numbers)
    columns = {
        "image_id": texts(f"{name}/lr-1/n10000000-#", numbers),
        "class": keys(numbers),
        "path": texts(path, numbers // 3900),
        "offset": pa.array(numbers % 3900 * 200_000),
        "length": pa.array(np.full(count, 190_000)),
        "prompt": texts("A photo of the thing with the number #, or something like it.", numbers % CLASSES),
        "seed": pa.array(numbers * 7919),
        "candidate": pa.array(["lr-1"]).take(pa.array(np.zeros(count, np.int64))),
    }
    if url:
        columns["url"] = texts(url, numbers)
    return pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in images.SCHEMA], images.SCHEMA)


def write_added(folder: Path, scale: float) -> None:
    """Sets that were drawn from a method's images, for all stages that want some."""
    if added(folder):
        return
    random = np.random.default_rng(0)
    for number in range(SETS):
        drawn = np.sort(random.permutation(scaled(GENERATED, scale))[: scaled(SPLIT, scale)])
        pq.write_table(rows_of(drawn, "pseudoword_dm", url=URL), folder / f"added-{number:02d}.parquet")


def write_classes(folder: Path, count: int) -> None:
    """A class table with so many training images."""
    table = pd.DataFrame({"class": keys(np.arange(CLASSES)).to_pylist(), "lemmas": "thing"})
    table = table.assign(hypernyms="", definition="", train=count // CLASSES, excluded="")
    files.write_csv(folder / "classes.csv", table)


def added(folder: Path, sets: int = SETS) -> list[str]:
    return sorted(map(str, folder.glob("added-*.parquet")))[:sets]


# --- stages: what is made for them, and what is measured ------------------------------------------------


def write_hash_added(folder: Path, scale: float) -> None:
    write_added(folder, scale)


def run_hash_added(folder: Path) -> int:
    from augbench.audit import hashes

    hashes.shrunk = lambda row: np.zeros((hashes.SIDE, hashes.SIDE), np.uint8)
    hashes.of_pixels = lambda pixels: np.zeros(len(pixels), np.uint64)
    table, _ = images.read_distinct(*added(folder))
    hashes.write(folder / "hashes.parquet", table, hashes.hashes(table))
    return len(table)


def write_audit(folder: Path, scale: float) -> None:
    write_added(folder, scale)
    random = np.random.default_rng(1)
    for name, count in (("generated", scaled(GENERATED, scale)), ("reference", scaled(SPLIT, scale))):
        table = rows_of(np.arange(count), "pseudoword_dm" if name == "generated" else "train")
        if name == "reference":
            pq.write_table(table, folder / "reference.parquet")
        hashed = {"image_id": table["image_id"], "hash": random.integers(0, 2**64, count, np.uint64)}
        pq.write_table(pa.table(hashed), folder / f"{name}-hashes.parquet")


def run_audit(folder: Path) -> int:
    """Only the first 200 hashes of the reference set are compared: more take time, and 8 bytes each."""
    from augbench.audit import duplicates

    compare = duplicates.pairs
    duplicates.pairs = lambda a, b, *rest: compare(a, b[:200], *rest)
    read = duplicates.read_set
    counts = []

    def noted(*arguments):
        result = read(*arguments)
        counts.append(len(result[0].table))
        return result

    duplicates.read_set = noted
    duplicates.audit_files(
        folder / "audit",
        ["test"],
        [1.0, 10.0],
        None,
        2,
        added=added(folder),
        added_hashes=str(folder / "generated-hashes.parquet"),
        added_vectors=[],
        references=[str(folder / "reference.parquet")],
        hashes=[str(folder / "reference-hashes.parquet")],
        vectors=[],
    )
    return sum(counts)


def write_domain_gap(folder: Path, scale: float) -> None:
    import torch
    from safetensors.torch import save_file

    from augbench.classifier import networks
    from augbench.study.sections.classifier import Classifier

    write_added(folder, scale)
    write_classes(folder, scaled(SPLIT, scale))
    pq.write_table(rows_of(np.arange(scaled(TEST, scale)), "test"), folder / "test.parquet")
    torch.manual_seed(0)
    (folder / "judge").mkdir()
    save_file(networks.Network(Classifier(**SMALL), CLASSES).weights(), folder / "judge" / "best.safetensors")
    files.write_json(folder / "judge" / "metrics.json", {"accuracy": 50.0})


def run_domain_gap(folder: Path) -> int:
    """Every image is one of a hundred of 8 x 8 pixels. Metrics of image sets take a sample of a size of its own, whose
    memory does not depend on the rows: here it is small."""
    from PIL import Image

    from augbench.classifier import scoring
    from augbench.report import domain_gap, set_metrics

    set_metrics.LARGEST = 100

    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(100)]
    scoring.evaluation_image = lambda row, **_: pictures[hash(row.image_id) % 100]
    domain_gap.write(
        folder / "domain_gap.csv",
        folder / "set_metrics.csv",
        ["pseudoword_dm"],
        SMALL,
        "classifier",
        0,
        classes=str(folder / "classes.csv"),
        test=str(folder / "test.parquet"),
        metrics=str(folder / "judge" / "metrics.json"),
        weights=str(folder / "judge" / "best.safetensors"),
        added=added(folder, RUNS),
    )
    return len(images.read_distinct(*added(folder, RUNS), columns=["image_id"])[0])


def write_retrieve(folder: Path, scale: float) -> None:
    import io

    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    (folder / "picture.png").write_bytes(data.getvalue())
    files.write_json(folder / "classes.json", scaled(CLASSES, scale))


class SyntheticIndex:
    """Neighbours of any query: ``NEIGHBOURS`` ids of which every fifth is one of an earlier class too."""

    identity = "made"

    def neighbours(self, queries, counts, threshold, **_) -> Iterator[pd.DataFrame]:
        for query, count in zip(queries, counts, strict=True):
            ids = int(query) * NEIGHBOURS + np.arange(count)
            ids[::5] = np.arange(0, count, 5)
            yield pd.DataFrame(
                {
                    "id": ids,
                    "similarity": np.linspace(0.4, 0.2, count),
                    "url": texts(URL, ids).to_pylist(),
                    "caption": texts("a photograph of the thing that has the number # of many", ids).to_pylist(),
                    "aesthetic": 6.0,
                    "duplicate_of": pd.array([None] * count, "Int64"),
                    "path": None,
                    "offset": pd.array([None] * count, "Int64"),
                    "length": pd.array([None] * count, "Int64"),
                }
            )


def run_retrieve(folder: Path) -> int:
    """A third of the addresses is dead; every hundredth neighbour is used. No search, download or judgement."""
    import hashlib

    from augbench.retrieval import retrieve, search
    from augbench.study.sections.retrieval import Retrieval

    classes = files.read_json(folder / "classes.json")
    image_bytes = (folder / "picture.png").stat().st_size

    def fetch(urls: list[str]) -> Iterator[pd.DataFrame]:
        is_dead = [hash(url) % 3 == 0 for url in urls]
        table = pd.DataFrame({"url": urls, "fate": ["dead" if dead else "fetched" for dead in is_dead]})
        table["reason"] = ["HTTP Error 404: Not Found" if dead else "" for dead in is_dead]
        table["sha256"] = [hashlib.sha256(url.encode()).hexdigest() for url in urls]
        yield table.assign(path=str(folder / "picture.png"), offset=0, length=image_bytes)

    class Judge:
        known_score = 5.0

        def __call__(self, tables: Iterable[pd.DataFrame], total: int, progress) -> list[dict]:
            good = (table.replace({"fate": {"fetched": "good"}}) for table in tables)
            return [row for table in good for row in table.to_dict("records")]

    count = NEIGHBOURS // 100
    names = [f"n{number:08d}" for number in range(classes)]
    settings = Retrieval(overfetch=100, overfetch_max=100, min_image_size=1)
    retrieve.retrieve(
        pd.DataFrame({"class": names, "query": [str(number) for number in range(classes)], "count": count}),
        search.CachedSearch(SyntheticIndex(), folder / "neighbours", 0.94),
        fetch,
        Judge(),
        retrieve.Outputs(*(folder / name for name in OUTPUTS)),
        settings,
    )
    return classes * NEIGHBOURS


def write_score(folder: Path, scale: float) -> None:
    """The images of a method, and two reference sets with their hashes."""
    pq.write_table(rows_of(np.arange(scaled(GENERATED, scale)), "pseudoword_dm"), folder / "candidates.parquet")
    write_classes(folder, scaled(SPLIT, scale))
    random = np.random.default_rng(1)
    for name, count in (("train", scaled(SPLIT, scale)), ("test", scaled(TEST, scale))):
        table = rows_of(np.arange(count), name)
        pq.write_table(table, folder / f"{name}.parquet")
        hashed = {"image_id": table["image_id"], "hash": random.integers(0, 2**64, count, np.uint64)}
        pq.write_table(pa.table(hashed), folder / f"{name}-hashes.parquet")


def run_score(folder: Path) -> int:
    """Without models. The nearest hashes are not looked for: that takes time, and no memory beside the hashes."""
    from augbench.report import scores
    from augbench.study import classes

    scores.nearest_hash = lambda mine, others: (np.zeros(len(mine), np.int64), np.full(len(mine), 30))
    scores.novelty = lambda values, known: np.full(len(values), 30)
    random = np.random.default_rng(2)
    seers = scores.Seers(
        hash=lambda table: random.integers(0, 2**64, len(table), np.uint64),
        confidence=lambda table: random.random(len(table)),
    )
    parts = {name: [str(folder / f"{name}{end}.parquet") for end in ("", "-hashes")] for name in ("train", "test")}
    references = {
        name: scores.References.read([table], [hashed], [])
        for name, (table, hashed) in zip(("train", "held_out"), parts.values(), strict=True)
    }
    keys = [row["class"] for row in classes.kept(folder / "classes.csv")]
    candidates = str(folder / "candidates.parquet")
    count = images.count(candidates)
    batches = scores.batches([candidates], None, keys)
    scores.write(folder / "scores.parquet", batches, scores.Scorer(seers, references, None), count, "made")
    return count


def write_filter_images(folder: Path, scale: float) -> None:
    """The scores of a method's images, and the images."""
    write_score(folder, scale)
    run_score(folder)


def run_filter_images(folder: Path) -> int:
    """The better half of each class by confidence; one in thirty may be a copy of a held-out image."""
    from augbench.dataset import filtering
    from augbench.study import classes

    counts = {row["class"]: row["train"] for row in classes.kept(folder / "classes.csv")}
    filtering.write(
        {"images": folder / "kept.parquet", "ledger": folder / "ledger.csv", "counts": folder / "counts.csv"},
        [folder / "candidates.parquet"],
        folder / "scores.parquet",
        counts,
        method="pseudoword_dm",
        rule={"by": "confidence", "keep": 0.5},
        leaks=(10, None),
        ratio=None,
    )
    return images.count(folder / "candidates.parquet")


def write_resample(folder: Path, scale: float) -> None:
    """6 million images, of three candidates' first ones and the chosen one's rest, in shards of some thousands."""
    write_classes(folder, scaled(SPLIT, scale))
    every = np.random.default_rng(0).permutation(scaled(6_000_000, scale))
    for number, part in enumerate(np.array_split(every, max(1, len(every) // 10_000))):
        pq.write_table(rows_of(part, "pseudoword_dm"), folder / f"shard-{number:04d}.parquet")


def run_resample(folder: Path) -> int:
    from augbench.dataset import resampling
    from augbench.study import classes

    sources = sorted(folder.glob("shard-*.parquet"))
    counts = {row["class"]: row["train"] for row in classes.kept(folder / "classes.csv")}
    paths = [folder / f"split-{k}.parquet" for k in range(1, RUNS + 1)]
    settings = {"ratio": 1.0, "order": "random", "seed_key": (1,)}
    resampling.write_sets(paths, sources, counts, candidate="lr-1", **settings)
    return images.count(*sources)


def write_classify(folder: Path, scale: float) -> None:
    write_added(folder, scale)
    photos = rows_of(np.arange(scaled(SPLIT, scale)), "train", "data/ILSVRC2012/train/n10000000/n10000000_#.JPEG")
    pq.write_table(photos, folder / "train.parquet")
    for name in ("validation", "test"):
        pq.write_table(rows_of(np.arange(scaled(TEST, scale)), name), folder / f"{name}.parquet")


def run_classify(folder: Path) -> int:
    """The process that starts the others, and one of these up to its first batch. Pictures are not decoded."""
    from augbench.classifier import runs, training
    from augbench.jobs import launching
    from augbench.study.sections.classifier import Classifier

    settings = Classifier(**SMALL)
    names = keys(np.arange(CLASSES)).to_pylist()

    def launch(function, job, place, *, threads):
        packed = {name: launching._packed(name, value, folder) for name, value in job.items()}
        files.write_json(folder / "call.json", packed)

    sets = {name: images.read_columns(folder / f"{name}.parquet") for name in ("train", "validation", "test")}
    training.forget = lambda folder: None
    runs.train_runs(runs.Trainer(settings, 10, launch), sets, names, added(folder, 1), {1: folder / "run-1"}, 1)
    return sum(map(len, sets.values())) + images.count(*added(folder, 1))


def run_classify_process(folder: Path) -> int:
    from PIL import Image

    from augbench.classifier import crops, networks, training
    from augbench.jobs import launching

    picture = Image.new("RGB", (8, 8))
    crops.MEMORY = 0
    crops.images.load = lambda row, at_least=None: picture
    job = {name: launching._unpacked(packed) for name, packed in files.read_json(folder / "call.json").items()}
    sets = {"training": job["train"], "validation": job["validation"], "test": job["test"]}
    labels = {name: training.labels_of(table, job["classes"], name) for name, table in sets.items()}
    network = networks.Network(job["settings"], len(job["classes"]))
    started = training._Training(network, sets, labels, job["settings"], job["seed"])
    started.resume_from(folder / "state.safetensors", job["classes"])
    return sum(map(len, sets.values()))


def write_summary(folder: Path, scale: float) -> None:
    write_added(folder, scale)
    for name, count in (("train", scaled(SPLIT, scale)), ("test", scaled(TEST, scale))):
        pq.write_table(rows_of(np.arange(count), name), folder / f"{name}.parquet")
    metrics = {"accuracy": 50.0, "best_validation_accuracy": 50.0, "epochs": 9, "at_cap": False}
    metrics |= {"steps": 9, "images_seen": 99}
    files.write_json(folder / "metrics.json", metrics | {"n_train": 99, "n_test": 9, "n_classes": 9})


def run_summary(folder: Path) -> int:
    from augbench.report import tables

    sets = added(folder)
    tables.write_summary(
        folder / "summary.json",
        "pseudoword_dm",
        {"title": "x", "family": "x", "start": "noise"},
        [1.0, 10.0],
        metrics=[str(folder / "metrics.json")] * len(sets),
        added=sets,
        train=str(folder / "train.parquet"),
        test=str(folder / "test.parquet"),
        audit=[],
    )
    return images.count(*sets)


def write_study_page(folder: Path, scale: float) -> None:
    """The first set of each of fourteen methods, the training set, and a ledger of ten million neighbours."""
    write_added(folder, scale)
    pq.write_table(rows_of(np.arange(scaled(SPLIT, scale)), "train"), folder / "train.parquet")
    write_classes(folder, scaled(SPLIT, scale))
    ids = np.arange(scaled(CLASSES, scale) * NEIGHBOURS)
    ledger = {"url": texts(URL, ids)}
    ledger["caption"] = texts("a photograph of the thing that has the number # of many", ids)
    pq.write_table(pa.table(ledger), folder / "ledger.parquet")


def run_study_page(folder: Path) -> int:
    """Its tables of images and captions, counted by training images; pictures do not depend on these numbers."""
    from types import SimpleNamespace

    from augbench.report import results

    paths = {name: {} for name in results.Files.__dataclass_fields__}
    paths |= {"classes": str(folder / "classes.csv"), "train": str(folder / "train.parquet")}
    paths |= {"added": dict(enumerate(added(folder))), "ledgers": {"retrieval": str(folder / "ledger.parquet")}}
    study = results.StudyResults(SimpleNamespace(), results.Files(**paths), folder, [])
    assert study.train_by_class and study.added_by_class and study.captions
    return images.count(folder / "train.parquet")


def of_processes(rows: int) -> float:
    return resources.classifier_tables(rows, PROCESSES)


class Stage(NamedTuple):
    """What is measured in the name of a rule; ``processes`` are those that take the memory of the last measured one,
    ``asked`` the megabytes that the rule asks for, if they are not those of one process."""

    write: Callable[[Path, float], None]
    runs: tuple[Callable[[Path], int], ...]
    processes: int = 1
    asked: Callable[[int], float] | None = None


STAGES = {
    "hash_added": Stage(write_hash_added, (run_hash_added,)),
    "audit": Stage(write_audit, (run_audit,)),
    "domain_gap": Stage(write_domain_gap, (run_domain_gap,)),
    "retrieve": Stage(write_retrieve, (run_retrieve,)),
    "score": Stage(write_score, (run_score,)),
    "filter_images": Stage(write_filter_images, (run_filter_images,)),
    "resample": Stage(write_resample, (run_resample,)),
    "classify": Stage(write_classify, (run_classify, run_classify_process), PROCESSES, of_processes),
    "summary": Stage(write_summary, (run_summary,)),
    "study_page": Stage(write_study_page, (run_study_page,)),
}


class Watch(threading.Thread):
    """Notes the largest private memory of this process, and the most that it has mapped of files, in MB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.private = self.mapped = 0.0

    def run(self):
        while True:
            lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            private, mapped, self.peak = (
                int(lines[key].split()[0]) * 1.024e-3 for key in ("RssAnon", "RssFile", "VmHWM")
            )
            self.private, self.mapped = max(self.private, private), max(self.mapped, mapped)
            time.sleep(0.02)


def alone(what: str, folder: str, scale: float) -> dict:
    """What a process of its own prints, as JSON. Raises SystemExit when it fails."""
    arguments = [what, "--folder", folder, "--scale", str(scale)]
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{what} failed with exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def part(what: str, folder: Path, scale: float) -> None:
    """One part of a stage, in this process: ``write-RULE``, or ``run-RULE-0``."""
    verb, rule, *number = what.split("-")
    watch = Watch()
    watch.start()
    start = time.monotonic()
    rows = 0
    if verb == "write":
        STAGES[rule].write(folder, scale)
    else:
        rows = STAGES[rule].runs[int(number[0])](folder)
    seconds = time.monotonic() - start
    time.sleep(0.1)
    measured = {"rows": rows, "seconds": seconds, "peak": watch.peak, "private": watch.private, "mapped": watch.mapped}
    print(json.dumps(measured))


def measure(rule: str, folder: str, scale: float) -> dict:
    """Rows, seconds, and megabytes that a stage took and that its rule asks for."""
    stage = STAGES[rule]
    alone(f"write-{rule}", folder, scale)
    parts = [alone(f"run-{rule}-{number}", folder, scale) for number in range(len(stage.runs))]
    *first, last = parts
    # Libraries and tables that are mapped are there once, however many processes map them.
    several = stage.processes * last["private"] + last["mapped"]
    taken = sum(each["peak"] for each in first) + (several if stage.processes > 1 else last["peak"])
    asked = stage.asked(last["rows"]) if stage.asked else resources.tables(rule, last["rows"])
    seconds = sum(each["seconds"] for each in parts)
    return {"rows": last["rows"], "seconds": seconds, "taken": taken, "asked": asked}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="RULE", help=f"of {', '.join(STAGES)}; all of them without one")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of rows")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        part(options.what[0], options.folder, options.scale)
        return
    too_much = []
    with tempfile.TemporaryDirectory() as folder:
        for rule in options.what or STAGES:
            measured = measure(rule, folder, options.scale)
            print(
                f"{rule}: {measured['rows']:,} rows, {measured['seconds']:.0f} s, {measured['taken']:,.0f} MB at most; "
                f"the rule asks for {measured['asked']:,.0f} MB",
                flush=True,
            )
            if measured["taken"] > measured["asked"]:
                too_much.append(rule)
    if too_much:
        raise SystemExit(f"more memory than was asked for: {', '.join(too_much)}")


if __name__ == "__main__":
    main()
