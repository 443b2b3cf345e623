"""The default study's results against what was planted in its world; run after `make report`."""

import json
from pathlib import Path

import pandas as pd
import pytest

from augbench import images
from augbench.audit import audit

RESULTS = Path("results/digits")
CLASSIFIER = RESULTS / "classifier" / "more_real" / "x1" / "run-1"
HANDWRITING = "a photo of handwritten {n}"  # the form that captions of the pool use for handwriting


@pytest.fixture(scope="module")
def planted():
    return pd.read_parquet(RESULTS / "digits" / "planted.parquet").set_index("url")


@pytest.fixture(scope="module")
def candidates(planted):
    """Every neighbour that retrieval considered, with what is planted at its URL."""
    found = pd.read_parquet(RESULTS / "retrieval" / "candidates.parquet")
    return found.join(planted.drop(columns="aesthetic"), on="url")


@pytest.fixture(scope="module")
def used(candidates):
    return candidates[candidates["fate"] == "used"]


def test_retrieved_images_show_their_class(used):
    share = (used["shows"] == used["class"]).mean()
    print(f"\n{share:.1%} of the {len(used)} images that retrieval uses show their class")
    assert share >= 0.8


def test_nothing_unsafe_or_unaesthetic_passes(candidates, used):
    met = candidates[~candidates["fate"].isin(["unaesthetic", "duplicate", "dead"])]
    print(f"\n{met['unsafe'].sum()} unsafe pictures were downloaded, {(met['fate'] == 'unsafe').sum()} refused")
    assert not used["unsafe"].any()
    assert (candidates["aesthetic"] < 5).any()
    assert not (used["aesthetic"] < 5).any()


def test_the_safety_checker_fires_on_the_planted_concept(planted):
    from augbench.backbone import SafetyChecker

    served = images.read(RESULTS / "digits" / "web.parquet")
    refused = pd.Series(SafetyChecker(RESULTS / "backbone").unsafe([images.load(row) for row in served.itertuples()]))
    truth = planted.loc[served["url"], "unsafe"].to_numpy()
    print(f"\nrefused: {refused[truth].mean():.1%} of unsafe, {refused[~truth].mean():.1%} of other pictures")
    assert refused[truth].mean() > 0.98
    assert refused[~truth].mean() < 0.02


def test_every_dead_link_is_counted(candidates):
    tried = ~candidates["fate"].isin(["unaesthetic", "duplicate"])
    assert candidates.loc[tried, "dead"].any()
    assert ((candidates["fate"] == "dead") == (candidates["dead"] & tried)).all()


def test_no_planted_copy_is_used_beside_its_original(used):
    for _, rows in used.groupby("class"):
        originals = rows["copy_of"].fillna(rows["key"])
        assert not originals.duplicated().any()


def test_the_audit_finds_every_planted_duplicate_among_the_added_images(used):
    added = used[used["near_duplicate_of"].notna()]
    found = pd.read_parquet(RESULTS / "audit" / "retrieval" / "candidates.parquet")
    found = found[found["reference_set"] == "test"]
    pairs = set(zip(found["added_id"], found["reference_id"], strict=True))
    wanted = {(f"retrieval/{row[1]}/{row.id}", row.near_duplicate_of) for row in added.itertuples()}
    print(f"\n{len(wanted)} near-duplicates of test images were retrieved")
    assert wanted <= pairs


def test_the_audit_finds_every_planted_duplicate_of_the_whole_web(planted, tmp_path):
    truth = planted[planted["near_duplicate_of"].notna()]
    served = images.read(RESULTS / "digits" / "web.parquet")
    test = images.read(RESULTS / "dataset" / "test.parquet")
    audit(served.assign(**{"class": ""}), {"test": test}, tmp_path)
    found = pd.read_parquet(tmp_path / "candidates.parquet")
    pairs = set(zip(found["added_id"], found["reference_id"], strict=True))
    wanted = {(f"web/{row.key}", row.near_duplicate_of) for row in truth[~truth["dead"]].itertuples()}
    wanted = {pair for pair in wanted if pair[1] in set(test["image_id"])}
    print(f"\n{len(wanted)} near-duplicates of test images on the web, {len(pairs)} candidates in all")
    assert len(wanted) > 100
    assert wanted <= pairs


def recognised(rows_by_method: dict, folder: Path) -> dict[str, float]:
    """Share of images that the `more_real` classifier recognises, per name."""
    from augbench import classifier

    classes = pd.read_csv(RESULTS / "dataset" / "classes.csv", keep_default_na=False)
    names = list(classes["class"][classes["excluded"] == ""])
    result = {}
    for name, table in rows_by_method.items():
        verdict = classifier.recognised(CLASSIFIER, names, table, model="small_cnn", image_size=32)
        result[name] = float(verdict["correct"].mean())
    return result


def test_samples_of_the_diffusion_model_are_recognisable(tmp_path):
    from augbench import sampling

    classes = pd.read_csv(RESULTS / "dataset" / "classes.csv", keep_default_na=False)
    tables = {}
    for name, form in {"handwriting": HANDWRITING, "simple prompt": "A photo of {n}."}.items():
        rows = [
            {"class": row[1], "index": i, "prompt": form.replace("{n}", row.lemmas.split(", ")[0])}
            for row in classes.itertuples()
            for i in range(16)
        ]
        paths = tmp_path / f"{name}.tar", tmp_path / f"{name}.parquet"
        settings = {
            "image_size": 32,
            "steps": 25,
            "guidance": 4.0,
            "batch_size": 32,
            "max_replacements": 50,
            "threads": 2,
        }
        sampling.generate(RESULTS / "backbone", rows, *paths, key=(0, "check", name), **settings)
        tables[name] = images.read(paths[1])
    shares = recognised(tables, tmp_path)
    print(f"\nrecognised by the more_real classifier: { ({k: f'{v:.0%}' for k, v in shares.items()}) }")
    assert shares["handwriting"] >= 0.8


def test_no_rule_reads_the_ledger():
    readers = [
        str(file)
        for folder in ("workflow", "src")
        for file in Path(folder).rglob("*")
        if file.suffix in {".py", ".smk"} and "planted" in file.read_text()
    ]
    assert sorted(readers) == [
        "src/augbench/digits.py",
        "workflow/rules/digits.smk",
        "workflow/scripts/digits_web.py",
    ]


def test_every_method_was_measured_five_times():
    table = pd.read_csv(RESULTS / "tables" / "table1.csv")
    assert list(table.columns) == [
        "method", "family", "ratio", "runs", "accuracy_mean", "accuracy_se", "paper_accuracy",
    ]  # fmt: skip
    assert list(table["method"]) == [
        "none", "more_real", "simple_prompt_nows", "simple_prompt", "clip_prompts", "retrieval",
    ]  # fmt: skip
    assert (table["runs"] == 5).all()
    for row in table.itertuples():
        ratio = "x0" if row.method == "none" else "x1"
        accuracies = []
        for k in range(1, 6):
            run = RESULTS / "classifier" / row.method / ratio / f"run-{k}"
            predictions = pd.read_parquet(run / "predictions.parquet")
            accuracies.append(100 * (predictions["class"] == predictions["predicted"]).mean())
            assert json.loads((run / "metrics.json").read_text())["accuracy"] == pytest.approx(accuracies[-1])
        assert row.accuracy_mean == pytest.approx(pd.Series(accuracies).mean(), abs=1e-3)
        assert row.accuracy_se == pytest.approx(pd.Series(accuracies).std() / 5**0.5, abs=1e-3)
