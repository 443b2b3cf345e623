"""Results of a study of the paper's size as far as the report reads them: a thousand classes, thirteen methods."""

import numpy as np
import pandas as pd
from PIL import Image

from augbench import images
from augbench.audit import duplicates
from augbench.core import files
from augbench.report import comparison, groups, set_metrics
from augbench.report.plan import Plan
from augbench.report.tables import scaling, summarise, table1
from augbench.retrieval import hosts

STARTS = {"none": "none", "more_real": "more_real", "boomerang": "image", "retrieval": "pool"}
FAMILIES = {"none": "baseline", "more_real": "baseline", "boomerang": "unconditional", "retrieval": "retrieval"}
METHODS = {
    name: {
        "title": name.replace("_", " "),
        "family": FAMILIES.get(name, "prompting"),
        "start": STARTS.get(name, "noise"),
        "conditioning": "simple_prompt" if STARTS.get(name, "pool") == "pool" else None,
    }
    for name in [*STARTS, *(f"prompts_{k}" for k in range(9))]
}
SETTINGS = {"seed": 1, "methods": list(METHODS), "runs": 5, "ratios": [1.0]}
SETTINGS |= {"target": {"reader": "imagenet", "path": "images"}, "dataset": {"train": 0.1}}
SETTINGS |= {"generate": {"times": 3, "images_per_class": 390}}
SETTINGS |= {"backbone": {"model": "owner/model"}, "clip": {"model": "ViT-L/14"}}
SETTINGS |= {"pool": {"source": "urls", "path": "pool.parquet"}}


def plan():
    return Plan.of_rows("large", SETTINGS, METHODS)


def make_results(folder, classes=1000):
    """Write them; pictures are photograph-like noise, of 256 pixels, of which a few serve all classes."""
    random = np.random.default_rng(0)
    keys = [f"n{k:08d}" for k in range(classes)]
    about = pd.DataFrame({"class": keys, "lemmas": [f"class number {k}, second name" for k in range(classes)]})
    about = about.assign(hypernyms="thing", definition="", train=130, excluded="")
    files.write_csv(folder / "dataset" / "classes.csv", about)
    pictures = []
    for k in range(20):
        coarse = Image.fromarray(random.integers(0, 255, (48, 48, 3), np.uint8)).resize((256, 256), 3)
        pictures.append(folder / f"{k}.jpg")
        coarse.save(pictures[-1])

    def table(name):
        return images.table(
            {"image_id": f"{name}/{key}-{i:05d}", "class": key, "path": str(pictures[(7 * place + i) % 20])}
            for place, key in enumerate(keys)
            for i in range(4)
        )

    images.write(folder / "dataset" / "train.parquet", table("train"))
    images.write(folder / "dataset" / "validation.parquet", table("validation"))
    summaries, accuracies, confusions = [], [], []
    generating = [method for method, row in METHODS.items() if row["start"] in ("noise", "image")]
    for method, row in METHODS.items():
        ratio = "x0" if method == "none" else "x1"
        about = {"n_test": 50000, "n_classes": classes, "n_train": 260 * classes, "epochs": 90, "at_cap": False}
        about |= {"steps": 90 * 260 * classes // 256, "images_seen": 90 * 260 * classes}
        metrics = [about | {"accuracy": value, "best_validation_accuracy": value} for value in random.normal(60, 1, 5)]
        rest = {"train": 130 * classes, "tested": 50000}
        summaries.append(summarise(method, row, {1.0: metrics}, {1.0: []}, None, **rest))
        files.write_json(folder / "summary" / f"{method}.json", summaries[-1])
        if method != "none":
            added = table(method)
            images.write(folder / "augmentation" / method / "x1" / "split-1.parquet", added)
            far = {"test": duplicates.Set(added.head(10), np.full(10, 2**64 - 1, np.uint64))}
            duplicates.audit(duplicates.Set(added, np.zeros(len(added), np.uint64)), far, folder / "audit" / method)
            if method in generating:
                images.write(folder / "images" / method / "base" / "shard-0.parquet", added)
        curve = pd.DataFrame({"epoch": range(1, 91), "validation_accuracy": 60.0})
        for k in range(1, 6):
            files.write_csv(folder / "classifier" / method / ratio / f"run-{k}" / "history.csv", curve)
        means = pd.DataFrame({"method": method, "class": keys, "tested": 50, "runs": 5})
        accuracies.append(means.assign(accuracy_mean=random.uniform(20, 90, classes).round(4), accuracy_se=1.2345))
        wrong = pd.DataFrame(
            {"method": method, "class": np.repeat(keys, 3), "predicted": random.choice(keys, 3 * classes)}
        )
        confusions.append(wrong.assign(count=9, share=3.6))
    files.write_csv(folder / "tables" / "per_class.csv", pd.concat(accuracies))
    files.write_csv(folder / "tables" / "confusions.csv", pd.concat(confusions))
    hits = {method: random.random((5, 50000)) < 0.6 for method in METHODS}
    files.write_csv(folder / "tables" / "differences.csv", comparison.differences(summaries, hits))
    files.write_csv(folder / "tables" / "scaling.csv", scaling(summaries))
    macro = pd.DataFrame({"method": list(METHODS), "runs": 5, "classes": classes, "worst_class": keys[0]})
    files.write_csv(folder / "tables" / "groups.csv", macro.reindex(columns=groups.COLUMNS, fill_value=60))
    files.write_csv(
        folder / "tables" / "table1.csv", table1(summaries, pd.DataFrame({"method": [], "accuracy": [], "se": []}))
    )
    fates = {"used": 130, "spare": 40, "dead": 60, "unaesthetic": 20, "duplicate": 9, "unsafe": 1}
    funnel = pd.DataFrame({"class": keys, "wanted": 130, "considered": sum(fates.values())}).assign(**fates)
    files.write_csv(folder / "retrieval" / "retrieval" / "funnel.csv", funnel)
    files.write_csv(folder / "retrieval" / "retrieval" / "hosts.csv", pd.DataFrame(columns=hosts.COLUMNS))
    pd.DataFrame({"url": [], "caption": []}).to_parquet(folder / "retrieval" / "retrieval" / "ledger.parquet")
    gap = pd.DataFrame({"method": [method for method in METHODS if method != "none"], "frechet_distance": 1.0})
    gap = gap.assign(recognised=50.0, images=130, sets=5, recognised_test=60.0)
    files.write_csv(folder / "tables" / "domain_gap.csv", gap)
    nothing = dict.fromkeys(gap["method"])
    files.write_csv(folder / "tables" / "set_metrics.csv", set_metrics.table(nothing, "classifier", 0))
    return folder
