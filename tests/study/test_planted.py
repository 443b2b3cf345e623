"""The default study's results against what was planted in its world; run after `make report`."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from augbench import images
from augbench.audit import hashes
from augbench.audit.duplicates import Set, audit

RESULTS = Path("results/digits")
CLASSIFIER = RESULTS / "classifier" / "more_real" / "x1" / "run-1"
STUDIES = [  # the default study, and the one with every method
    yaml.safe_load(Path(file).read_text())["studies"]["digits"]["methods"]
    for file in ("config/config.yaml", "config/digits_all.yaml")
]
METHODS = list(pd.read_csv(RESULTS / "tables" / "table1.csv")["method"])
CAPTIONED = ("retrieval_captions", "retrieval_captions_and_clip")  # methods that captions choose for
HANDWRITING = "a photo of handwritten {n}"  # the form that captions of the pool use for handwriting


@pytest.fixture(scope="module")
def planted():
    return pd.read_parquet(RESULTS / "digits" / "planted.parquet").set_index("url")


@pytest.fixture(scope="module")
def ledgers(planted):
    """Every neighbour that each method's retrieval considered, with what is planted at its URL."""
    files = {name: RESULTS / "retrieval" / name / "ledger.parquet" for name in METHODS}
    ledgers = {name: pd.read_parquet(file) for name, file in files.items() if file.exists()}
    return {name: ledger.join(planted.drop(columns="aesthetic"), on="url") for name, ledger in ledgers.items()}


@pytest.fixture(scope="module")
def candidates(ledgers):
    return ledgers["retrieval"]


@pytest.fixture(scope="module")
def used(candidates):
    return candidates[candidates["fate"] == "used"]


def test_retrieved_images_show_their_class(ledgers):
    for name, ledger in ledgers.items():
        used = ledger[ledger["fate"] == "used"]
        share = (used["shows"] == used["class"]).mean()
        print(f"\n{share:.1%} of the {len(used)} images that {name} uses show their class")
        assert share >= (1 if name in CAPTIONED else 0.8)  # of this web's captions none lies


def test_nothing_unsafe_or_unaesthetic_passes(candidates, used):
    met = candidates[~candidates["fate"].isin(["unaesthetic", "duplicate", "dead"])]
    print(f"\n{met['unsafe'].sum()} unsafe pictures were downloaded, {(met['fate'] == 'unsafe').sum()} refused")
    assert not used["unsafe"].any()
    assert (candidates["aesthetic"] < 5).any()
    assert not (used["aesthetic"] < 5).any()


def test_the_safety_checker_fires_on_the_planted_concept(planted):
    from augbench.models.backbones import SafetyChecker

    served = images.read(RESULTS / "digits" / "web.parquet")
    refused = pd.Series(SafetyChecker(RESULTS / "backbone").unsafe([images.load(row) for row in served.itertuples()]))
    truth = planted.loc[served["url"], "unsafe"].to_numpy()
    print(f"\nrefused: {refused[truth].mean():.1%} of unsafe, {refused[~truth].mean():.1%} of other pictures")
    assert refused[truth].mean() >= 0.99
    assert refused[~truth].mean() <= 0.01


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
    served = served.assign(**{"class": ""})
    audit(Set(served, hashes.hashes(served)), {"test": Set(test, hashes.hashes(test))}, tmp_path)
    found = pd.read_parquet(tmp_path / "candidates.parquet")
    pairs = set(zip(found["added_id"], found["reference_id"], strict=True))
    wanted = {(f"web/{row.key}", row.near_duplicate_of) for row in truth[~truth["dead"]].itertuples()}
    wanted = {pair for pair in wanted if pair[1] in set(test["image_id"])}
    print(f"\n{len(wanted)} near-duplicates of test images on the web, {len(pairs)} candidates in all")
    assert len(wanted) > 100
    assert wanted <= pairs


def test_samples_of_the_diffusion_model_are_recognisable(tmp_path):
    from augbench.classifier import scoring
    from augbench.diffusion import sampling
    from augbench.diffusion.sampler import Sampler
    from augbench.diffusion.sampling_plan import batches
    from augbench.study import classes
    from augbench.study.methods import Method
    from augbench.study.sections.classifier import Classifier
    from augbench.study.sections.diffusion import Generate

    kept = classes.kept(RESULTS / "dataset" / "classes.csv")
    names = [about["class"] for about in kept]
    settings = Generate(image_size=32, steps=12, guidance=4.0)
    method = Method(title="", family="", conditioning="simple_prompt", start="noise")
    shares = {}
    for name, form in {"handwriting": HANDWRITING, "simple prompt": "A photo of {n}."}.items():
        rows = [
            {
                "class": about["class"],
                "number": number,
                "index": i,
                "prompt": form.replace("{n}", about["lemmas"].split(", ")[0]),
            }
            for number, about in enumerate(kept)
            for i in range(16)
        ]
        paths = tmp_path / f"{name}.tar", tmp_path / f"{name}.parquet"
        sampler = Sampler(RESULTS / "backbone", method, settings, safety=RESULTS / "backbone")
        work = sampling.Work(lambda sampler=sampler: sampler, batches(rows, 16), (0, "check"), name, name)
        sampling.write_shard([work], *paths)
        examine = scoring.examiner(CLASSIFIER, names, Classifier(model="small_cnn", image_size=32))
        shares[name] = float(np.concatenate([correct for _, correct in examine(images.read(paths[1]))]).mean())
    print(f"\nrecognised by the more_real classifier: { ({k: f'{v:.0%}' for k, v in shares.items()}) }")
    assert shares["handwriting"] >= 0.8


def test_the_domain_gap_is_measured_for_every_method_that_adds_images():
    gap = pd.read_csv(RESULTS / "tables" / "domain_gap.csv")
    print(f"\n{gap.to_string(index=False)}")
    assert list(gap["method"]) == METHODS[1:]
    assert gap["recognised"].between(0, 100).all()
    assert gap.set_index("method")["frechet_distance"].idxmin() == "more_real"


def test_fine_tuned_images_are_the_chosen_candidates():
    """The screened first images and the rest make one set: the chosen candidate's, with no index twice; of the others
    an image of each class is kept."""
    for method in METHODS:
        path = RESULTS / "selection" / f"{method}.json"
        if not path.exists():
            continue
        chosen = json.loads(path.read_text())
        best = max(row["validation_accuracy"] for row in chosen["screened"])
        assert chosen["validation_accuracy"] == best
        kept = images.read(*(RESULTS / "images" / method / "selected").glob("*.parquet"))
        assert set(kept["candidate"]) == {row["candidate"] for row in chosen["screened"]}
        assert not list((RESULTS / "images" / method / "screen").glob("shard-*"))
        both = kept[kept["candidate"] == chosen["candidate"]]
        others = kept[kept["candidate"] != chosen["candidate"]]
        assert (others.groupby(["candidate", "class"]).size() == 1).all()
        assert not both["image_id"].duplicated().any()
        train = images.read(RESULTS / "dataset" / "train.parquet")
        counts = both.groupby("class").size()
        assert (counts >= 3 * train.groupby("class").size()).all()
        added = images.read(RESULTS / "augmentation" / method / "x1" / "split-1.parquet")
        assert set(added["image_id"]) <= set(both["image_id"])
        print(f"{method}: {chosen['candidate']} of {len(chosen['screened'])} candidates")


def test_no_rule_reads_the_ledger():
    readers = [
        str(file)
        for folder in ("workflow", "src")
        for file in Path(folder).rglob("*")
        if file.suffix in {".py", ".smk"} and "planted" in file.read_text()
    ]
    assert sorted(readers) == [
        "src/augbench/digits/data.py",
        "workflow/rules/digits.smk",
        "workflow/scripts/digits_web.py",
    ]


def test_every_method_was_measured_five_times():
    table = pd.read_csv(RESULTS / "tables" / "table1.csv")
    assert list(table.columns) == [
        "method", "family", "ratio", "sets", "runs", "accuracy_mean", "accuracy_se", "epochs", "steps", "images_seen",
        "paper_accuracy", "paper_se",
    ]  # fmt: skip
    assert METHODS in STUDIES
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


def test_the_papers_rule_ends_every_classifier_run():
    """20 epochs without better validation accuracy; at a cap, methods with fewer steps would lose."""
    runs = sorted(RESULTS.glob("classifier/*/*/run-*"))
    assert len(runs) == 5 * len(METHODS)
    epochs = []
    for run in runs:
        history = pd.read_csv(run / "history.csv")["validation_accuracy"]
        assert len(history) == history.argmax() + 1 + 20, run
        epochs.append(len(history))
    print(f"\nclassifiers were trained for {min(epochs)} to {max(epochs)} epochs")
