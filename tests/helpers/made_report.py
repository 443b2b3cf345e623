"""Results of a small study as far as the report reads them, with hostile text wherever text comes from data.

The stages write them themselves where they can without training anything. `workflow/test_small_study.py` compares the
columns of all of them, also of those that are written here, with those of a study that was really run.
"""

import functools
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from augbench import images
from augbench.audit import duplicates
from augbench.core import benchmarks, files, package_data
from augbench.diffusion import selection
from augbench.diffusion.candidates import history_file
from augbench.report import comparison, domain_gap, groups, page, per_class, set_metrics, study_page
from augbench.report.catalogue import EXHIBITS
from augbench.report.plan import Plan
from augbench.report.results import Files, StudyResults
from augbench.report.tables import published, scaling, summarise, table1
from augbench.retrieval import hosts
from augbench.retrieval import ledger as ledger_module

EVIL = '<script>alert("x")</script>'
METHODS = {
    "none": {"title": "Target data only", "family": "baseline", "start": "none"},
    "more_real": {"title": "Further real data", "family": "baseline", "start": "more_real"},
    "clip_prompts": {
        "title": f"CLIP {EVIL}",
        "family": "prompting",
        "start": "noise",
        "conditioning": "clip_prompts",
    },
    "retrieval": {"title": "Retrieval", "family": "retrieval", "start": "pool", "conditioning": "simple_prompt"},
    "ft": {
        "title": f"FT {EVIL}",
        "family": "fine-tuning",
        "start": "noise",
        "conditioning": "simple_prompt",
        "trained": ["conditioning"],
        "clusters": 2,
    },
}
ACCURACIES = {
    "none": [90.0, 90.4, 90.2],
    "more_real": [98.0, 98.1, 98.2],
    "clip_prompts": [94.8, 95.0, 95.2],
    "retrieval": [96.8, 97.0, 97.2],
    "ft": [95.9, 96.0, 96.1],
}
SETTINGS = {"seed": 1, "methods": list(METHODS), "runs": 3, "ratios": [1.0]}
SETTINGS |= {"scaling": {"methods": ["retrieval", "ft"], "ratios": [4.0]}}
SETTINGS |= {"target": {"reader": "folder", "path": EVIL}, "dataset": {"train": 0.15}}
SETTINGS |= {"generate": {"times": 1, "images_per_class": None}}
SETTINGS |= {"backbone": {"model": "owner/model"}, "clip": {"model": "ViT-L/14"}}
SETTINGS |= {"pool": {"source": "urls", "path": "pool.parquet"}}
OUTPUTS = {"page": "report.html", "section": "page.json", "answer": "answer.md", "figures": "figures"}
OUTPUTS |= {"compute": "tables/compute.csv"}


def plan(methods=METHODS, **settings):
    """The plan of a study with these methods."""
    settings = SETTINGS | {"methods": list(methods)} | settings
    settings["scaling"] = settings["scaling"] if set(settings["scaling"].get("methods", [])) <= set(methods) else {}
    return Plan.of_rows("digits", settings, methods)


def files_of(folder, plan, **further):
    """What the report reads of the results in ``folder``."""
    main = {method: f"x{plan.ratios(method)[0]:g}" for method in plan.methods}
    tables = ("table1", "differences", "scaling", "groups", "per_class", "confusions")
    named = {name: f"{folder}/tables/{name}.csv" for name in tables}
    named |= {"classes": f"{folder}/dataset/classes.csv"}
    named |= {split: f"{folder}/dataset/{split}.parquet" for split in ("train", "validation")}
    named |= {name: f"{folder}/tables/{name}.csv" if plan.adding else None for name in ("domain_gap", "set_metrics")}
    named |= {"clusters": f"{folder}/finetune/clusters.parquet" if plan.clustered else None}
    named |= {f"paper_{name}": str(package_data.bundled(f"paper_{name}.csv")) for name in ("results", "compute")}
    by_method = {
        "summaries": (plan.methods, "summary/{}.json"),
        "audits": (plan.adding, "audit/{}/summary.json"),
        "candidates": (plan.adding, "audit/{}/candidates.parquet"),
        "reviews": (plan.adding, "audit/{}/review.html"),
        "selections": (plan.finetuned, "selection/{}.json"),
        "ledgers": (plan.retrieving, "retrieval/{}/ledger.parquet"),
        "funnels": (plan.retrieving, "retrieval/{}/funnel.csv"),
        "hosts": (plan.retrieving, "retrieval/{}/hosts.csv"),
    }
    named |= {
        name: {m: f"{folder}/{pattern.format(m)}" for m in methods} for name, (methods, pattern) in by_method.items()
    }
    named["added"] = {m: f"{folder}/augmentation/{m}/{main[m]}/split-1.parquet" for m in plan.adding}
    named["histories"] = {
        m: [f"{folder}/classifier/{m}/{main[m]}/run-{k}/history.csv" for k in range(1, plan.settings.runs + 1)]
        for m in plan.methods
    }
    named["generated"] = {
        m: [f"{folder}/images/{m}/{'selected' if m in plan.finetuned else 'base'}/shard-0.parquet"]
        for m in plan.generating
    }
    named["finetunings"] = {m: [f"{folder}/finetune/{m}/lr-{rate}.csv" for rate in (1, 2, 4)] for m in plan.finetuned}
    return named | further


def jobs_of(folder):
    """The jobs that the results in ``folder`` have benchmark files of."""
    found = sorted((Path(folder) / "benchmarks").glob("*/*.tsv"))
    return [benchmarks.Job(str(path), path.parent.name) for path in found]


def results(folder, plan, **further):
    return StudyResults(plan, Files(**files_of(folder, plan, **further)), folder, jobs_of(folder))


def exhibits(folder, plan, **further):
    """Name -> data of each exhibit of the results in ``folder``."""
    gathered = study_page.gather(results(folder, plan, **further))
    return {name: data for name, (_, data) in gathered.items()}


def write_report(folder, plan, **further):
    """Write what a study contributes to the report to ``folder``; return its page as text."""
    methods = {key: method.model_dump() for key, method in plan.methods.items()}
    outputs = {name: str(Path(folder) / path) for name, path in OUTPUTS.items()}
    settings = plan.settings.model_dump(exclude={"jobs"})
    study_page.write(plan.name, settings, methods, files_of(folder, plan, **further), jobs_of(folder), outputs)
    return Path(outputs["page"]).read_text(encoding="utf-8")


def section(results, *names):
    """HTML of a study's section of the page with these exhibits alone: all of them take seconds to draw."""
    chosen = [exhibit for exhibit in EXHIBITS if exhibit.name in names]
    assert len(chosen) == len(names)
    gathered = {name: (exhibit, data) for exhibit in chosen for name, data in exhibit.gather(results)}
    return study_page.section(results, gathered, {})["html"]


def write_page(folder, plan, **further):
    """The same without the folder of figures, which takes longest."""
    found, settings = results(folder, plan, **further), plan.settings.model_dump(exclude={"jobs"})
    files.write_json(Path(folder) / "page.json", study_page.section(found, study_page.gather(found), settings))
    page.write(Path(folder) / "report.html", [Path(folder) / "page.json"])
    return (Path(folder) / "report.html").read_text(encoding="utf-8")


def _images(folder, name, classes, **facts):
    """An image table of five noisy pictures per class, as files."""
    random = np.random.default_rng(0)
    rows = []
    for key in classes:
        for _ in range(5):
            path = folder / "pictures" / f"{name}-{len(rows)}.png"
            path.parent.mkdir(exist_ok=True, parents=True)
            size = 32 if name == "train" else 120
            Image.fromarray(random.integers(0, 255, (size, size, 3), np.uint8)).save(path)
            row = {"image_id": f"{name}/{len(rows)}", "class": key, "path": str(path)}
            rows.append(row | {k: value(len(rows)) for k, value in facts.items()})
    return images.table(rows)


@dataclass(frozen=True)
class Made:
    """Where results lie, the classes that are kept, and their training images."""

    folder: Path
    keys: tuple[str, ...]
    train: pd.DataFrame


def make_results(folder, keys=("a", EVIL)):
    """A results folder of a study as the workflow leaves it. Its pictures lie where they were first made."""
    return Path(shutil.copytree(_once(tuple(keys)).name, folder))


@functools.cache
def _once(keys):
    """The same in a folder that lasts as long as the process: tests that change it take a copy, which is cheap."""
    temporary = tempfile.TemporaryDirectory(prefix="made-report-")
    _make(Path(temporary.name), keys)
    return temporary


def _make(folder, keys):
    made = Made(folder, keys, _images(folder, "train", keys))
    classes = pd.DataFrame({"class": [*keys, "empty"], "lemmas": ["ay, alpha", f"b {EVIL}", "none at all"]})
    classes = classes.assign(hypernyms="letter", definition="", train=[5, 5, 0])
    classes["excluded"] = ["", "", f"3 images <b>only</b> {EVIL}"]
    files.write_csv(folder / "dataset" / "classes.csv", classes)
    images.write(folder / "dataset" / "train.parquet", made.train)
    images.write(folder / "dataset" / "validation.parquet", made.train.iloc[:3])
    _write_generated(made)
    _write_finetuned(made)
    _write_retrieved(made)
    added = _write_added(made)
    _write_classifiers(made)
    _write_tables(made, _write_summaries(made, added), added)
    for stage, name, seconds in (("classify", "a", 61), ("classify", "b", 10), ("audit", "a", 5)):
        path = folder / "benchmarks" / stage / f"{name}.tsv"
        files.write_text(path, f"s\th:m:s\tmax_rss\n{seconds}.0\t0:01:00\t{'-' if name == 'b' else 300}\n")


def _write_generated(made):
    """Of a fine-tuned method the chosen candidate's images, and some of others."""
    facts = {
        "clip_prompts": {"prompt": lambda i: f"{EVIL} {i}"},
        "ft-selected": {
            "prompt": lambda i: f"A photo of {EVIL} (cluster {i % 2 + 1} of 2, learned)",
            "cluster": lambda i: i % 2,
            "candidate": lambda i: "lr-2_epoch-2",
        },
        "ft-screen": {
            "prompt": lambda i: f"A photo of {EVIL} (cluster 1 of 2, learned)",
            "cluster": lambda i: 0,
            "candidate": lambda i: f"lr-2_epoch-{i % 2 + 1}",
        },
    }
    tables = {name: _images(made.folder, name, made.keys, **of) for name, of in facts.items()}
    images.write(made.folder / "images" / "clip_prompts" / "base" / "shard-0.parquet", tables["clip_prompts"])
    selected = pd.concat([tables["ft-screen"], tables["ft-selected"]], ignore_index=True)
    images.write(made.folder / "images" / "ft" / "selected" / "shard-0.parquet", selected)


def _write_finetuned(made):
    """Three learning rates: the second is better, its two epochs have three names between them; the third diverged."""
    folders = [made.folder / "finetune" / "ft" / rate for rate in ("lr-1", "lr-2", "lr-4")]
    for place, best in zip(folders, (0.5, 0.4, math.inf), strict=True):
        history = pd.DataFrame({"epoch": [1, 2], "train_loss": [0.6, 0.5], "validation_loss": [0.7, best]})
        files.write_csv(history_file(place), history)
        names = pd.DataFrame({"candidate": ["epoch-1", "epoch-2", EVIL], "epoch": [1, 2, 2]})
        files.write_csv(place / "candidates.csv", names.merge(history, on="epoch"))
    screened = [row | {"validation_accuracy": 80.0 + row["epoch"]} for row in selection.candidates(folders)]
    chosen = selection.select(screened) | selection.compare_rates(folders, (1.0, 2.0, 4.0))
    files.write_json(made.folder / "selection" / "ft.json", chosen)
    members = made.train[["image_id", "class"]].assign(split="train", k=2, cluster=[i % 2 for i in range(10)])
    members.to_parquet(made.folder / "finetune" / "clusters.parquet")


def _write_retrieved(made):
    fates = ["used"] * 5 + ["spare", "dead", "unaesthetic", "duplicate", "unsafe", "lost"]
    rows = [
        {"class": key, "rank": i, "url": f"http://example.org/{i}.png", "caption": f"my {EVIL}", "fate": fate}
        for key in made.keys
        for i, fate in enumerate(fates)
    ]
    rows += [{"class": "empty", "rank": i, "fate": "dead"} for i in range(4)]
    ledger = pd.DataFrame(rows, columns=ledger_module.LEDGER)
    place = made.folder / "retrieval" / "retrieval"
    place.mkdir(parents=True)
    ledger.to_parquet(place / "ledger.parquet")
    wanted = {key: 5 + i for i, key in enumerate(made.keys)} | {"empty": 5}
    lost = [1] * len(made.keys) + [0]  # by a fate that the report does not know
    funnel = ledger_module.count_fates(
        ledger[ledger["fate"] != "lost"].groupby(["class", "fate"]).size(), wanted
    ).assign(lost=lost)
    files.write_csv(place / "funnel.csv", funnel.assign(considered=funnel["considered"] + lost))
    answers = [("example.org", 20, 17, 3, 0, 0, 0, 0, 3_400_000), (f"{EVIL}.org", 5, 2, 0, 3, 0, 0, 0, 200_000)]
    files.write_csv(place / "hosts.csv", pd.DataFrame(answers, columns=hosts.COLUMNS))


def _write_added(made):
    """The images that each method adds, audited; method -> summary of the audit and image table."""
    facts = {
        "more_real": {},
        "clip_prompts": {"prompt": lambda i: f"a photo of {EVIL}"},
        "retrieval": {"url": lambda i: f"http://example.org/{i}.png"},
        "ft": {"prompt": lambda i: f"A photo of {EVIL} (cluster {i % 2 + 1} of 2, learned)"},
    }
    found = {}
    for method, of in facts.items():
        table = _images(made.folder, method, made.keys, **of)
        images.write(made.folder / "augmentation" / method / "x1" / "split-1.parquet", table)
        # The first training image plays a test image: that many bits away from the first, second, ... added image.
        bits = np.array([2**i - 1 for i in range(len(table))], np.uint64)
        far = np.full(len(made.train), 2**64 - 1, np.uint64)
        far[0] = 0
        sets = duplicates.Set(table, bits), {"test": duplicates.Set(made.train, far)}
        ratios = {1.0: range(len(table))} | ({4.0: [*range(len(table)), 0]} if method == "retrieval" else {})
        found[method] = duplicates.audit(*sets, made.folder / "audit" / method, ratios=ratios), table
        files.write_text(made.folder / "audit" / method / "review.html", "")
    return found


def _write_classifiers(made):
    """Curves, and predictions of 1,000 test images; what is wrong is taken for the next class."""
    count, keys = 1000, made.keys
    for method, accuracies in ACCURACIES.items():
        for k, accuracy in enumerate(accuracies, 1):
            curve = pd.DataFrame({"epoch": range(1, 11), "learning_rate": 0.1, "train_loss": 1.0})
            curve = curve.assign(train_accuracy=accuracy, validation_accuracy=accuracy - 20 / np.arange(1, 11))
            place = _runs(made.folder, method) / f"run-{k}"
            files.write_csv(place / "history.csv", curve)
            right = [i < 10 * accuracy - 1e-6 for i in range(count)]
            said = [keys[(i + 1 - ok) % len(keys)] for i, ok in enumerate(right)]
            seen = {
                "image_id": [f"test/{i}" for i in range(count)],
                "class": [keys[i % len(keys)] for i in range(count)],
            }
            seen |= {"predicted": said, "correct": right, "confidence": np.float32(0.5)}
            pd.DataFrame(seen).to_parquet(place / "predictions.parquet")


def _runs(folder, method):
    return folder / "classifier" / method / ("x0" if method == "none" else "x1")


def _write_summaries(made, added):
    summaries = []
    for method, row in METHODS.items():
        about = {"n_test": 1000, "n_classes": 2, "n_train": 10 if method == "none" else 20, "epochs": 10}
        about |= {"steps": 10 * math.ceil(about["n_train"] / 4), "images_seen": 10 * about["n_train"]}
        about["at_cap"] = method == "clip_prompts"
        runs = [about | {"accuracy": value, "best_validation_accuracy": value} for value in ACCURACIES[method]]
        metrics = {0 if method == "none" else 1: runs}
        found, table = added.get(method, (None, None))
        sets = {} if table is None else dict.fromkeys((1, 4), 3 * [list(table["image_id"])])
        if method in ("retrieval", "ft"):  # at ratio 4 one class cannot be filled
            metrics[4] = [run | {"n_test": 970, "n_classes": 1} for run in metrics[1]]
        rest = {"train": len(made.train), "tested": 1000}
        summaries.append(summarise(method, row, metrics, sets, found, **rest))
        files.write_json(made.folder / "summary" / f"{method}.json", summaries[-1])
    return summaries


def _write_tables(made, summaries, added):
    runs = {m: sorted(_runs(made.folder, m).glob("run-*/predictions.parquet")) for m in METHODS}
    tables = {
        "table1": table1(summaries, published(pd.read_csv(package_data.bundled("paper_results.csv")), "imagenet10")),
        "differences": comparison.differences(summaries, comparison.read_hits(runs)),
        "scaling": scaling(summaries),
        "groups": groups.table(runs, dict.fromkeys(made.keys, 5)),
    }
    tables["per_class"], tables["confusions"] = per_class.measure(runs)
    # Features of one dimension: those of the fine-tuned images have the same spread, 2.5 further on.
    known = {f"ft/{i}" for i in range(4, 10)}

    def examine(table):
        fine_tuned = table["image_id"].str.startswith("ft/").to_numpy()
        recognised = ~fine_tuned | table["image_id"].isin(known).to_numpy()
        yield (np.arange(len(table)) + 2.5 * fine_tuned)[:, None], recognised

    real = domain_gap.moments_of(examine(made.train))
    gaps = {
        method: domain_gap.measure([np.arange(len(table))], examine(table), real)
        for method, (_, table) in added.items()
    }
    tables["domain_gap"] = domain_gap.table(gaps, 96.5)
    measured = {
        method: set_metrics.SetMetrics(0.01 * k, 0.5, 0.25, 1.25, 0.75, 9.5) if k else None
        for k, method in enumerate(added)
    }
    tables["set_metrics"] = set_metrics.table(measured, "classifier", 10)
    for name, table in tables.items():
        files.write_csv(made.folder / "tables" / f"{name}.csv", table)
