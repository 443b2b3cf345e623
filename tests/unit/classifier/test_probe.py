"""The probe against scikit-learn, against a frozen network whose last layer is trained to convergence, and by hand."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from timm import data as timm_data
from timm_folders import SIDE, write_vit
from tinted import CLASSES, SEED, tinted

from augbench import images
from augbench.classifier import features, training
from augbench.classifier.probe import Probes, fit_all
from augbench.classifier.runs import Trainer, train_runs
from augbench.classifier.scoring import examiner
from augbench.core.files import read_json
from augbench.study.adaptations import ADAPTATIONS
from augbench.study.recipes import Mix, Recipe
from augbench.study.sections.classifier import Classifier

OUTPUTS = ["best.safetensors", "history.csv", "metrics.json", "predictions.parquet"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    model = write_vit(tmp_path_factory.mktemp("networks") / "vit")
    return Classifier(model=model, weights="pretrained", train="probe", workers=0)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tinted")
    counts = (("train", 300), ("validation", 60), ("test", 400))
    return [tinted(folder, name, count, side=SIDE, noise=60) for name, count in counts]


@pytest.fixture(scope="module")
def run(settings, sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, Probes(settings).train(*sets, CLASSES, folder, seed=SEED)


def blobs(count, seed):
    """Features of very different scales, and labels that they hardly tell."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    scale = np.array([0.01, 1, 50, 3])
    return torch.from_numpy((random.normal(size=(count, 4)) + labels[:, None] * [0.5, -0.4, 0.3, 0]) * scale), (
        torch.from_numpy(labels)
    )


@pytest.mark.parametrize("strength", [-2.0, 0.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_is_scikit_learns_on_scaled_features(strength, weighted):
    x, y = blobs(200, 1)
    weights = torch.linspace(0.5, 1.5, 200, dtype=torch.float64) if weighted else None
    fit = fit_all(x, y, 3, weights, [-3.0, strength])[-1]
    mean, deviation = x.mean(0), x.std(0, correction=0)
    theirs = LogisticRegression(C=10**strength, tol=1e-10, max_iter=10_000)
    theirs.fit((x - mean) / deviation, y, sample_weight=weights)
    shares = theirs.predict_proba((x - mean) / deviation)
    assert fit.logits(x).softmax(1).numpy() == pytest.approx(shares, abs=1e-4)


def test_a_feature_that_is_the_same_everywhere_does_no_harm():
    x, y = blobs(100, 2)
    constant = torch.cat([x, torch.full((100, 1), 7.0, dtype=torch.float64)], 1)
    assert fit_all(constant, y, 3)[6].logits(constant).numpy() == pytest.approx(
        fit_all(x, y, 3)[6].logits(x).numpy(), abs=1e-6
    )


@pytest.mark.middle  # takes seconds
def test_a_probe_is_as_good_as_the_last_layer_trained_to_convergence(settings, sets, run):
    """A plain loop: timm's features of timm's pictures, a linear layer, and Adam until nothing changes."""
    network = timm.create_model(settings.model, pretrained=True, num_classes=0).eval()
    transform = timm_data.create_transform(**timm_data.resolve_model_data_config(network), is_training=False)

    def seen(table):
        pictures = torch.stack([transform(Image.open(path)) for path in table["path"]])
        with torch.inference_mode():
            vectors = network(pictures).double()
        return vectors.clone(), torch.tensor([CLASSES.index(key) for key in table["class"]])

    (x, y), _, (tested, truth) = map(seen, sets)
    mean, deviation = x.mean(0), x.std(0, correction=0)
    head = torch.nn.Linear(x.shape[1], 3, dtype=torch.float64)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    penalty = 1 / (2 * 10 ** run[1]["best_log10_C"] * len(x))
    for _ in range(1500):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(head((x - mean) / deviation), y)
        (loss + penalty * head.weight.square().sum()).backward()
        optimizer.step()
    accuracy = 100 * (head((tested - mean) / deviation).argmax(1) == truth).double().mean().item()
    assert 60 < accuracy < 99
    assert run[1]["accuracy"] == pytest.approx(accuracy, abs=0.5)


@pytest.mark.middle  # takes seconds
def test_its_files_are_those_of_other_classifiers(settings, sets, run):
    folder, metrics = run
    assert sorted(file.name for file in folder.iterdir()) == OUTPUTS
    assert read_json(folder / "metrics.json") == metrics
    predicted = pd.read_parquet(folder / "predictions.parquet")
    assert list(predicted.columns) == ["image_id", "class", "predicted", "correct", "confidence"]
    assert list(predicted["image_id"]) == list(sets[2]["image_id"])
    assert metrics["accuracy"] == pytest.approx(100 * predicted["correct"].mean())
    assert (metrics["epochs"], metrics["n_train"], metrics["images_seen"]) == (1, 300, 300)
    assert metrics["weights"]["licence"] == "apache-2.0"
    trained = {"model": settings.model, "weights": "pretrained", "train": "head", "batch_size": 64, "max_epochs": 1}
    other = training.train(*sets, CLASSES, folder / "head", Classifier(**trained), seed=SEED)
    assert {"best_epoch"} ^ set(other) == {"best_log10_C"} ^ set(metrics)
    stored, known = (load_file(each / "best.safetensors") for each in (folder, folder / "head"))
    assert {name: tensor.shape for name, tensor in stored.items()} == {
        name: tensor.shape for name, tensor in known.items()
    }


def test_its_weights_score_images_as_it_did(settings, sets, run):
    """In the eyes of those who read a classifier's folder, such as the domain gap."""
    hits = [bool(hit) for _, each in examiner(run[0], CLASSES, settings)(sets[2]) for hit in each]
    assert hits == list(pd.read_parquet(run[0] / "predictions.parquet")["correct"])


def test_the_strength_is_that_of_the_best_validation_accuracy(run):
    history = pd.read_csv(run[0] / "history.csv")
    best = history["validation_accuracy"].max()
    equals = history[history["validation_accuracy"] == best]
    assert run[1]["best_validation_accuracy"] == pytest.approx(best)
    assert run[1]["best_log10_C"] == equals["log10_C"][equals["validation_loss"].idxmin()]


@pytest.mark.middle  # takes seconds
def test_runs_read_features_that_are_there_and_give_the_same_bytes(settings, sets, tmp_path, monkeypatch):
    added = tinted(tmp_path, "added", 30, side=SIDE, noise=60)
    added["image_id"] = "added/" + added["image_id"].astype(str)
    names = ("train", "validation", "test", "added")
    for name, table in zip(names, (*sets, added), strict=True):
        images.write(tmp_path / f"{name}.parquet", table)
    tables = {name: tmp_path / f"{name}.parquet" for name in names}
    splits = [tables[name] for name in names[:3]]
    features.write(tmp_path / "splits", splits, Classifier(**settings.encoder))
    features.write(tmp_path / "method", [tables["added"]], Classifier(**settings.encoder))
    files = [(tmp_path / "splits", splits), (tmp_path / "method", [tables["added"]])]

    def folders(name):
        return {run: tmp_path / name / str(run) for run in (1, 2)}

    def trained(name, files):
        trainer = Trainer(settings, 10, lambda *rest, **more: pytest.fail("no training"), features=files)
        train_runs(trainer, dict(zip(names, sets, strict=False)), CLASSES, [tables["added"]] * 2, folders(name), SEED)
        return [(tmp_path / name / str(run) / file).read_bytes() for run in (1, 2) for file in OUTPUTS]

    computed = trained("computed", ())
    monkeypatch.setattr(features, "encode", lambda *rest: pytest.fail("computed again"))
    assert trained("read", files) == computed
    metrics = read_json(tmp_path / "read" / "1" / "metrics.json")
    assert metrics["n_train"] == 330


def test_images_are_encoded_once_for_all_probes_of_a_job(settings, sets, tmp_path, monkeypatch):
    probes, original, encoded = Probes(settings), features.encode, []

    def counted(network, table, *rest):
        encoded.extend(table["image_id"])
        return original(network, table, *rest)

    monkeypatch.setattr(features, "encode", counted)
    small = sets[0].iloc[:60]
    for run in (1, 2):
        probes.train(small, sets[1], sets[2].iloc[:20], CLASSES, tmp_path / str(run), seed=run)
    assert len(encoded) == len(set(encoded)) == 60 + 60 + 20


@pytest.mark.middle  # takes seconds
def test_added_images_weigh_what_a_method_says(settings, sets, tmp_path):
    """Images with wrong labels do less harm the less they weigh."""
    wrong = sets[0].iloc[100:250].copy()
    wrong["class"] = [CLASSES[(CLASSES.index(key) + 1) % 3] for key in wrong["class"]]
    train = pd.concat([sets[0].iloc[:100], wrong], ignore_index=True)
    accuracies = [
        Probes(settings).train(
            train, *sets[1:], CLASSES, tmp_path / str(weight), seed=0, added=150, recipe=Recipe(mix=Mix(weight=weight))
        )["accuracy"]
        for weight in (0.02, 0.9)
    ]
    assert accuracies[0] > accuracies[1] + 20


@pytest.mark.parametrize(("row", "key"), [({"augment": "mixup"}, "augment"), ({"mix": {"probability": 0.5}}, "mix")])
def test_methods_that_change_images_in_training_are_none_of_a_probes(row, key):
    with pytest.raises(ValueError, match=f"knows no `{key}.*write `train: head`"):
        ADAPTATIONS["probe"].check_recipe(Recipe(**row))
    for name in ("all", "head"):
        ADAPTATIONS[name].check_recipe(Recipe(**row))
    ADAPTATIONS["probe"].check_recipe(Recipe(mix=Mix(weight=0.2)))
