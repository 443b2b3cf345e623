"""The schedule worked by hand, images against torchvision's, and small runs of the real thing."""

import re
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from kills import kill_at_call
from PIL import Image
from safetensors.numpy import load_file
from tinted import CLASSES, SEED, SETTINGS, ended, tinted, untrained, with_settings
from torchvision.transforms.functional import pil_to_tensor

from augbench import images
from augbench.classifier import crops as classifier_crops
from augbench.classifier import networks, training
from augbench.classifier.crops import evaluation_image, random_crop, random_crop_of, training_image
from augbench.classifier.schedule import epoch_order
from augbench.classifier.scoring import confidences, examiner
from augbench.classifier.training import train
from augbench.core.files import read_json
from augbench.core.seeds import derive
from augbench.images import pixels
from augbench.jobs import launching
from augbench.study.architectures import MEAN, STD, Torchvision, known_models, library_of
from augbench.study.budgets import BUDGETS
from augbench.study.optimizers import OPTIMIZERS
from augbench.study.schedules import SCHEDULES, plateau
from augbench.study.sections.classifier import Classifier

STEPS = 3  # in an epoch of 25 images
OF_TIMM = ["train", "layer_decay"]  # settings that other networks do not take
OUTPUTS = ["best.safetensors", "history.csv", "metrics.json", "predictions.parquet"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tinted")
    return [tinted(folder, "train", 25), tinted(folder, "validation", 15), tinted(folder, "test", 30)]


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    """One undisturbed run: its folder and what it returned."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train(*sets, CLASSES, folder, SETTINGS, seed=SEED)


def contents(folder):
    training.forget(folder)
    assert sorted(file.name for file in folder.iterdir()) == OUTPUTS
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# --- schedule -------------------------------------------------------------------------------------------


def test_learning_rate_and_stop_on_a_sequence_worked_by_hand():
    accuracies = [10, 30, 30, 20, 31, 31, 5, 31, 30, 31]
    #             best    .   1  2  best 1  2  3   4   5     epochs without a new best, a tie being none
    rates, bests, stops = [], [], []
    for epochs in range(len(accuracies) + 1):
        rate, best, stop = plateau(accuracies[:epochs], 0.8, patience=2, stop_after=5)
        rates.append(rate)
        bests.append(best)
        stops.append(stop)
    assert rates == pytest.approx([0.8, 0.8, 0.8, 0.8, 0.08, 0.08, 0.08, 0.008, 0.008, 0.0008, 0.0008])
    assert bests == [0, 1, 2, 2, 2, 5, 5, 5, 5, 5, 5]
    assert stops == [False] * 10 + [True]


def test_the_papers_schedule():
    flat = [50.0] + [49.0] * 19
    assert [plateau(flat[:n], 0.1, 10, 20) for n in (10, 11, 20)] == [
        (0.1, 1, False),
        (0.1 / 10, 1, False),
        (0.1 / 10, 1, False),
    ]
    assert plateau([*flat, 50.0], 0.1, 10, 20)[2]


def test_training_follows_the_schedule(sets, tmp_path):
    """A rate of 0 learns nothing: accuracy stays, so the run ends ``stop_after`` epochs after the first."""
    settings = with_settings(learning_rate=1e-12, max_epochs=30, patience=2, stop_after=5)
    metrics = train(*sets, CLASSES, tmp_path, settings, seed=SEED)
    history = pd.read_csv(tmp_path / "history.csv")
    rates, accuracies = list(history["learning_rate"]), list(history["validation_accuracy"])
    assert len(rates) == metrics["epochs"] < 30
    for epoch in range(len(rates)):
        rate, _, stop = plateau(accuracies[:epoch], 1e-12, 2, 5)
        assert rates[epoch] == pytest.approx(rate)
        assert not stop
    assert plateau(accuracies, 1e-12, 2, 5)[1:] == (metrics["best_epoch"], True)


def test_every_image_once_an_epoch_and_no_batch_of_one():
    batches = epoch_order(25, 8, seed=1, epoch=1)
    assert [len(batch) for batch in batches] == [8, 8, 9]
    assert sorted(np.concatenate(batches)) == list(range(25))
    assert [len(batch) for batch in epoch_order(26, 8, 1, 1)] == [8, 8, 8, 2]
    assert list(epoch_order(25, 8, 1, 2)[0]) != list(batches[0])


# --- models ---------------------------------------------------------------------------------------------


def test_known_models_are_torchvisions():
    import torchvision

    assert known_models()[1:] == torchvision.models.list_models(module=torchvision.models)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("resnet-50", "resnet50"), ("ResNet18", "resnet18"), ("small-cnn", "small_cnn"), ("?", "resnet50")],
)
def test_unknown_models_get_a_suggestion(name, meant):
    with pytest.raises(ValueError, match=f"did you mean.*'{meant}'"):
        library_of(name).check(name)
    library_of(meant).check(meant)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_have_no_heads_that_nothing_trains(name):
    """Several processes would wait for their gradients."""
    with torch.device("meta"):
        heads = [head for head, _ in untrained(name, 3).named_parameters() if "aux" in head.lower()]
    assert heads == []


@pytest.mark.parametrize("layer", [torch.nn.Linear(2, 2), torch.nn.MultiheadAttention(2, 1)])
def test_networks_with_attention_are_known(monkeypatch, layer):
    """On a GPU they need stricter rules to give the same bytes twice."""
    network = torch.nn.Sequential(torch.nn.Sequential(layer))
    monkeypatch.setattr(Torchvision, "build", lambda self, *rest: (network, None))
    assert networks.Network(Classifier(model="any"), 2).has_attention == isinstance(layer, torch.nn.MultiheadAttention)


def test_a_torchvision_model_is_trained(sets, tmp_path):
    settings = with_settings(model="squeezenet1_1", image_size=32, max_epochs=1)
    metrics = train(*sets, CLASSES, tmp_path, settings, seed=SEED)
    assert (metrics["model"], metrics["epochs"]) == ("squeezenet1_1", 1)
    assert load_file(tmp_path / "best.safetensors")["classifier.1.weight"].shape == (3, 512, 1, 1)
    _, correct = examined(tmp_path, sets[2], settings)
    assert list(correct) == list(pd.read_parquet(tmp_path / "predictions.parquet")["correct"])


# --- images ---------------------------------------------------------------------------------------------


@pytest.fixture(params=[(300, 200), (97, 150), (64, 64)])
def photo(request, tmp_path):
    """A row and its picture, width x height as given."""
    width, height = request.param
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    row = next(images.table([{"image_id": "photo", "class": "red", "path": str(tmp_path / "photo.png")}]).itertuples())
    return row, Image.fromarray(pixels)


def test_evaluation_is_torchvisions_resize_and_centre_crop(photo):
    from torchvision.transforms.v2 import CenterCrop, Compose, Resize

    row, picture = photo
    expected = Compose([Resize(256 * 56 // 224), CenterCrop(56)])(picture)
    assert np.array_equal(evaluation_image(row, 56, whole_image=False), expected)
    assert evaluation_image(row, 56, whole_image=True).size == (56, 56)


def test_crops_have_the_areas_shapes_and_places_asked_for():
    """On a picture whose pixels are their own coordinates a crop's corners tell where it was taken."""
    x, y = np.meshgrid(np.arange(240), np.arange(200))
    picture = Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8))
    boxes, mirrored = [], 0
    for i in range(400):
        crop = np.asarray(random_crop(picture, 40, (0.25, 0.5), True, (1, i))).astype(float)
        left, right = crop[20, [0, -1], 0]
        mirrored += left > right
        w, h = abs(right - left) * 40 / 39, (crop[-1, 20, 1] - crop[0, 20, 1]) * 40 / 39
        boxes.append((w * h / (240 * 200), w / h, min(left, right), crop[0, 20, 1]))
    area, ratio, left, top = np.array(boxes).T
    assert area.min() > 0.23
    assert area.max() < 0.53
    assert area.std() > 0.05
    assert ratio.min() > 0.70
    assert ratio.max() < 1.42
    assert left.min() < 10
    assert top.min() < 10
    assert 150 < mirrored < 250
    straight = [np.asarray(random_crop(picture, 40, (0.25, 0.5), False, (1, i))) for i in range(20)]
    assert all(crop[20, 0, 0] < crop[20, -1, 0] for crop in straight)


def test_long_images_are_cropped_too():
    assert random_crop(Image.new("RGB", (400, 3)), 16, (0.9, 1.0), True, (0,)).size == (16, 16)


@pytest.fixture(scope="module")
def large_photos(tmp_path_factory):
    """JPEGs as a camera leaves them, smooth with noise: lying, and standing but stored lying."""
    folder, rows = tmp_path_factory.mktemp("large"), []
    for i, exif in enumerate([None, 3, 6, 8]):  # 3: upside down; 6, 8: to be turned right, left
        random = np.random.default_rng(i)
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((1203, 901))
        pixels = np.asarray(coarse) + random.normal(0, 4, (901, 1203, 3))
        about = Image.Exif()
        if exif:
            about[0x0112] = exif
        path = folder / f"{i}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90, exif=about)
        rows.append({"image_id": str(i), "class": "a", "path": str(path)})
    return images.table(rows)


def test_crops_decoded_at_a_reduced_size_are_those_of_the_whole_image(large_photos, monkeypatch):
    """The place of a crop that is wrong by two pixels would differ by more than noise does."""
    decode, sizes = pixels.OpenedImage.decode, []

    def watched(*arguments, **keywords):
        decoded = decode(*arguments, **keywords)
        sizes.append(decoded.size)
        return decoded

    for row in large_photos.itertuples():
        whole = images.load(row)
        reductions = set()
        for i in range(12):
            with monkeypatch.context() as patch:
                patch.setattr(pixels.OpenedImage, "decode", watched)
                crop = random_crop_of(row, 64, (0.08, 1.0), True, (2, i))
            (left, top, right, bottom), _ = classifier_crops._crop(whole.size, (0.08, 1.0), True, (2, i))
            reduction = round(whole.width / sizes[-1][0])
            reductions.add(reduction)
            # Never enlarged, and reduced as far as that allows.
            assert min(right - left, bottom - top) / reduction >= 64
            assert reduction == 8 or min(right - left, bottom - top) / (2 * reduction) < 65
            expected = random_crop(whole, 64, (0.08, 1.0), True, (2, i))
            difference = np.abs(np.asarray(crop).astype(int) - np.asarray(expected))
            assert difference.mean() < 1.5, (row.image_id, reduction)
            assert difference.max() < 16
        assert {4, 8} <= reductions


def test_crops_of_small_images_and_of_other_formats_are_decoded_whole(photo):
    """Where nothing can be spared the pixels are the same, bit by bit."""
    row, picture = photo
    for i in range(8):
        one, other = random_crop_of(row, 200, (0.5, 1.0), True, (i,)), random_crop(picture, 200, (0.5, 1.0), True, (i,))
        assert np.array_equal(one, other)


def test_crops_of_a_large_png_are_decoded_whole(large_photos, tmp_path):
    whole = images.load(next(large_photos.itertuples()))
    whole.save(tmp_path / "large.png")
    row = next(images.table([{"image_id": "p", "class": "a", "path": str(tmp_path / "large.png")}]).itertuples())
    one, other = random_crop_of(row, 64, (0.5, 1.0), False, (1,)), random_crop(whole, 64, (0.5, 1.0), False, (1,))
    assert np.array_equal(one, other)


def test_a_generated_image_is_decoded_once(photo, monkeypatch):
    """Of a PNG even the size of the upright image may stand behind the pixels."""
    from PIL import PngImagePlugin

    decodings = []
    begin = PngImagePlugin.PngImageFile.load_prepare
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load_prepare", lambda self: decodings.append(1) or begin(self))
    random_crop_of(photo[0], 40, (0.08, 1.0), True, (1,))
    assert len(decodings) == 1


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.middle)])
def test_what_is_not_kept_is_read_at_a_reduced_size_from_files_and_tars(large_photos, workers, tmp_path):
    rows = []
    with images.ShardWriter(tmp_path / "photos.tar") as shard:
        for row in large_photos.itertuples():
            offset, length = shard.add(row.image_id, {"jpg": images.load_bytes(row)}, image="jpg")
            where = {"path": str(tmp_path / "photos.tar"), "offset": offset, "length": length}
            rows.append({"image_id": row.image_id, "class": "a"} | where)
    rows_of = list(large_photos.itertuples())
    expected = [random_crop_of(row, 64, (0.08, 1.0), True, (5, 3, i)) for i, row in enumerate(rows_of)]
    for table in (large_photos, images.table(rows)):
        data = classifier_crops.training_batches(table, 64, (0.08, 1.0), True, (5,), workers)
        (batch,) = data.stream([(3, [2, 0, 1], [2, 0, 1])])
        found = batch.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(found, np.stack([expected[i] for i in (2, 0, 1)]))


def test_a_damaged_large_photo_is_named(large_photos, tmp_path):
    data = images.load_bytes(next(large_photos.itertuples()))
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    row = next(images.table([{"image_id": "h", "class": "a", "path": str(tmp_path / "half.jpg")}]).itertuples())
    with pytest.raises(ValueError, match=r"cannot read .*half\.jpg"):
        random_crop_of(row, 64, (0.08, 1.0), True, (0,))
    (tmp_path / "half.jpg").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*half\.jpg: it is not there"):
        random_crop_of(row, 64, (0.08, 1.0), True, (0,))


def test_only_images_larger_than_any_crop_needs_are_reduced(photo):
    row, picture = photo
    assert training_image(row, 56, (0.08, 1.0)).size == (  # 56 / sqrt(0.08) = 197.99
        (297, 198) if picture.size == (300, 200) else picture.size
    )


# --- runs -----------------------------------------------------------------------------------------------


def test_metrics_predictions_and_history_agree(sets, run):
    folder, metrics = run
    predictions = pd.read_parquet(folder / "predictions.parquet")
    history = pd.read_csv(folder / "history.csv")
    assert metrics == read_json(folder / "metrics.json")
    assert list(predictions.columns) == ["image_id", "class", "predicted", "correct", "confidence"]
    assert list(predictions["image_id"]) == list(sets[2]["image_id"])
    assert list(predictions["class"]) == list(sets[2]["class"])
    assert list(predictions["correct"]) == list(predictions["class"] == predictions["predicted"])
    assert metrics["accuracy"] == pytest.approx(100 * predictions["correct"].mean())
    assert predictions["confidence"].between(1 / 3, 1).all()
    assert list(history.columns) == [
        "epoch", "learning_rate", "train_loss", "train_accuracy", "validation_accuracy",
    ]  # fmt: skip
    best = history["validation_accuracy"].idxmax()  # the first of equals
    assert metrics["best_epoch"] == history["epoch"][best]
    assert metrics["best_validation_accuracy"] == pytest.approx(history["validation_accuracy"][best], rel=1e-5)
    assert [metrics[f"n_{name}"] for name in ("train", "validation", "test")] == [25, 15, 30]
    assert (metrics["epochs"], metrics["seed"], metrics["model"]) == (6, 3, "small_cnn")
    assert metrics["at_cap"]


def test_the_best_checkpoint_is_the_one_scored(sets, tmp_path):
    """At a rate at which accuracy jumps about, best and last weights see different things."""
    metrics = train(*sets, CLASSES, tmp_path, with_settings(learning_rate=0.5, max_epochs=8), seed=SEED)
    assert metrics["best_epoch"] < metrics["epochs"]
    correct = [examined(tmp_path, table)[1] for table in sets[1:]]
    assert 100 * correct[0].mean() == pytest.approx(metrics["best_validation_accuracy"])
    assert list(correct[1]) == list(pd.read_parquet(tmp_path / "predictions.parquet")["correct"])


def test_a_lower_rate_is_a_smaller_step(sets, run, tmp_path):
    """With less patience the losses part in the very epoch that has a lower rate."""
    train(*sets, CLASSES, tmp_path, with_settings(patience=1), seed=SEED)
    one, other = (pd.read_csv(folder / "history.csv") for folder in (run[0], tmp_path))
    lower = other["learning_rate"] < one["learning_rate"]
    assert 0 < lower.sum() < 6
    assert list(one["train_loss"] != other["train_loss"]) == list(lower)


def test_it_learns(sets, tmp_path):
    metrics = train(*sets, CLASSES, tmp_path, with_settings(max_epochs=40, crop_scale=(0.5, 1)), seed=SEED)
    assert metrics["accuracy"] > 85
    assert metrics["epochs"] > metrics["best_epoch"]
    assert not metrics["at_cap"]


def test_same_seed_same_bytes_other_seed_other_bytes(sets, run, tmp_path):
    train(*sets, CLASSES, tmp_path / "same", SETTINGS, seed=SEED)
    assert contents(tmp_path / "same") == contents(run[0])
    train(*sets, CLASSES, tmp_path / "other", SETTINGS, seed=4)
    assert contents(tmp_path / "other")["best.safetensors"] != contents(run[0])["best.safetensors"]


@pytest.mark.parametrize("workers", [0, *(pytest.param(number, marks=pytest.mark.middle) for number in (2, None))])
def test_how_images_are_read_changes_nothing(sets, run, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(classifier_crops, "MEMORY", 0)
    train(*sets, CLASSES, tmp_path, with_settings(workers=workers), seed=SEED)
    assert contents(tmp_path) == contents(run[0])


@pytest.mark.parametrize("workers", [0, None])
def test_threads_that_prepare_batches_for_a_gpu_change_nothing(sets, run, tmp_path, monkeypatch, workers):
    """As on a GPU, but that the memory from which it would copy is the usual one."""
    allocate, pinned, threads = classifier_crops._allocate, [], set()

    def allocated(shape, is_pinned):
        pinned.append(is_pinned)
        threads.add(threading.current_thread())
        return allocate(shape, False)

    original = classifier_crops.Batches.__init__

    def on_gpu(self, *arguments):
        original(self, *arguments)
        self.pinned = True

    monkeypatch.setattr(classifier_crops.Batches, "__init__", on_gpu)
    monkeypatch.setattr(classifier_crops, "_allocate", allocated)
    train(*sets, CLASSES, tmp_path, with_settings(workers=workers), seed=SEED)
    assert all(pinned)
    assert (threading.main_thread() in threads) == (workers == 0)
    assert contents(tmp_path) == contents(run[0])


def test_a_batch_that_a_gpu_has_no_memory_for_is_a_sentence(sets, tmp_path, monkeypatch):
    """Half of it would have batch statistics of its own, and so other results."""

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(networks.Network, "logits", full)
    wanted = (
        "the GPU's memory does not suffice for the 8 images of a batch; write a lower `classifier: {batch_size: ...}`, "
        "or let several GPUs share each batch, `classifier: {processes: ...}`"
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(wanted)}$"):
        train(*sets, CLASSES, tmp_path, SETTINGS, seed=SEED)


def test_images_that_a_gpu_has_no_memory_for_are_classified_in_halves(sets, run, monkeypatch):
    logits, sizes = networks.Network.logits, []

    def limited(self, pixels):
        if len(pixels) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(pixels))
        return logits(self, pixels)

    monkeypatch.setattr(networks.Network, "logits", limited)
    ((features, correct),) = examiner(run[0], CLASSES, SETTINGS)(sets[2])
    assert sizes == [7, 7, 7, 7, 2] and len(features) == sum(sizes)
    stored = pd.read_parquet(run[0] / "predictions.parquet")
    assert list(correct) == list(stored["predicted"] == stored["class"])


@pytest.mark.parametrize("step", [1, 7, 15])
def test_a_run_ended_by_sigterm_goes_on_to_the_same_bytes(sets, run, tmp_path, step):
    ended(sets, tmp_path, step)
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]
    seen = []
    train(*sets, CLASSES, tmp_path, SETTINGS, seed=SEED, progress=lambda done, total, note: seen.append(done))
    assert seen == list(range((step - 1) // STEPS + 1, 7))
    assert contents(tmp_path) == contents(run[0])


@pytest.mark.middle
@pytest.mark.parametrize("step", [5, 11, 18])
def test_a_killed_run_goes_on_from_the_last_state(sets, run, tmp_path, step):
    """SIGKILL gives no warning: a process that saves at every step dies in the middle of an epoch."""

    def run_once():
        train(*sets, CLASSES, tmp_path / "run", SETTINGS, seed=SEED, save_minutes=1e-9)

    kill_at_call(step, networks.Network, "step", run_once)
    seen = []
    folder = tmp_path / "run"
    train(*sets, CLASSES, folder, SETTINGS, seed=SEED, progress=lambda done, total, note: seen.append(done))
    assert seen[0] == (step - 1) // STEPS + 1
    assert contents(folder) == contents(run[0])


def in_shares(sets, epochs, shares):
    """The training losses of a plain loop in which each share of a batch has batch statistics of its own."""
    size, rate = SETTINGS.image_size, SETTINGS.learning_rate
    torch.manual_seed(derive(SEED, "classifier", "weights"))
    model = untrained("small_cnn", len(CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    rows, losses = list(sets[0].itertuples()), []
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in epoch_order(len(rows), SETTINGS.batch_size, SEED, epoch, 2 * shares):
            optimizer.zero_grad()
            for share in (batch[k::shares] for k in range(shares)):
                keys = [(SEED, "classifier", epoch, int(i)) for i in share]
                crops = [
                    random_crop(images.load(rows[i]), size, (0.08, 1.0), True, key)
                    for i, key in zip(share, keys, strict=True)
                ]
                pixels = torch.stack([pil_to_tensor(crop) / 255 for crop in crops])
                labels = torch.tensor([CLASSES.index(rows[i][2]) for i in share])
                loss = torch.nn.functional.cross_entropy(model((pixels - mean) / std), labels, reduction="sum")
                (loss / len(batch)).backward()
                total += loss.item()
            optimizer.step()
        losses.append(total / len(rows))
    return losses


@pytest.mark.middle
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_share_each_batch(sets, tmp_path, processes):
    given = dict(zip(("train", "validation", "test"), sets, strict=True))
    given |= {
        "classes": CLASSES,
        "folder": str(tmp_path / "run"),
        "settings": with_settings(max_epochs=3),
        "seed": SEED,
    }
    launching.run(training.train, given, tmp_path / "processes", processes=processes, threads=1)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["train_loss"].to_numpy() == pytest.approx(in_shares(sets, 3, processes), abs=1e-4)
    predictions = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert list(predictions["image_id"]) == list(sets[2]["image_id"])
    assert list(examined(tmp_path / "run", sets[2])[1]) == list(predictions["correct"])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_finished_run_whose_results_are_gone_is_scored_and_not_trained_again(sets, run, tmp_path):
    """As when a job is killed in a later one of its runs, and Snakemake removes what it had written."""
    train(*sets, CLASSES, tmp_path, SETTINGS, seed=SEED)
    for name in OUTPUTS:
        (tmp_path / name).unlink()
    seen = []
    train(*sets, CLASSES, tmp_path, SETTINGS, seed=SEED, progress=lambda done, total, note: seen.append(done))
    assert seen == []
    assert contents(tmp_path) == contents(run[0])


@pytest.mark.parametrize(
    "change", ["seed", "image", *sorted(set(type(SETTINGS).model_fields) - {"workers", "processes", *OF_TIMM})]
)
def test_a_state_of_other_input_is_not_resumed(sets, run, tmp_path, change):
    """The killed run had another seed or setting, or one image was blank then and has the same path and table now."""
    path = Path(sets[0]["path"][5])
    original = path.read_bytes()
    other = {"model": "shufflenet_v2_x0_5", "crop_scale": (0.1, 1.0), "horizontal_flip": False, "image_size": 32}
    other |= {"steps": 18, "weights": "pretrained", "schedule": SCHEDULES["cosine"], "optimizer": OPTIMIZERS["adamw"]}
    other |= {"warmup": 3, "ema": 0.9}
    settings = SETTINGS
    if change == "image":
        Image.new("RGB", (16, 16)).save(path)
    elif change == "budget":
        settings = with_settings(budget=BUDGETS["steps"], steps=18)
    elif change != "seed":
        settings = with_settings(**{change: other[change] if change in other else getattr(SETTINGS, change) * 2})
    ended(sets, tmp_path, 4, settings, seed=4 if change == "seed" else SEED)
    if change == "image":  # else not even a file's time is another
        path.write_bytes(original)
    assert (tmp_path / "state.safetensors").exists()
    seen = []
    if change in ("seed", "image"):
        train(*sets, CLASSES, tmp_path, SETTINGS, seed=SEED, progress=lambda done, total, note: seen.append(done))
        assert contents(tmp_path) == contents(run[0])
    else:  # where it begins is enough
        ended(sets, tmp_path, STEPS + 1, progress=lambda done, total, note: seen.append(done))
    assert seen[0] == 1


def test_confidences_are_probabilities_of_each_images_own_class(sets, run):
    """Of the class that is predicted they are what was stored of the image; over all classes they add up to one."""
    stored = pd.read_parquet(run[0] / "predictions.parquet")
    confidence = confidences(run[0], CLASSES, SETTINGS)
    assert confidence(sets[2].assign(**{"class": stored["predicted"].array})) == pytest.approx(
        stored["confidence"].to_numpy(), abs=1e-6
    )
    assert sum(confidence(sets[2].assign(**{"class": key})) for key in CLASSES) == pytest.approx(np.ones(30), abs=1e-5)


def examined(folder, table, settings=SETTINGS):
    """Features and recognised images of all batches."""
    features, correct = zip(*examiner(folder, CLASSES, settings)(table), strict=True)
    return torch.cat(features).numpy(), np.concatenate(correct)


@pytest.mark.middle
def test_any_table_can_be_examined_by_any_number_of_workers(sets, run, monkeypatch):
    stored = pd.read_parquet(run[0] / "predictions.parquet")["predicted"]
    part = sets[2].iloc[[4, 1]].assign(**{"class": ["red", "of another study"]})
    features, correct = examined(run[0], part)
    assert features.shape == (2, 128)
    assert list(correct) == [stored[4] == "red", False]
    monkeypatch.setattr(networks, "EVALUATION_BATCH", 1)
    by_workers, correct_by_workers = examined(run[0], part, with_settings(workers=2))
    assert by_workers == pytest.approx(features, abs=1e-5)
    assert list(correct_by_workers) == list(correct)


def test_features_are_what_the_last_layer_sees(sets, run):
    """The last layer's weights on them give the stored predictions."""
    features, correct = examined(run[0], sets[2])
    weights = load_file(run[0] / "best.safetensors")
    last = max(int(name.split(".")[0]) for name in weights)
    logits = features @ weights[f"{last}.weight"].T + weights[f"{last}.bias"]
    stored = pd.read_parquet(run[0] / "predictions.parquet")
    assert [CLASSES[i] for i in logits.argmax(1)] == list(stored["predicted"])
    assert list(correct) == list(stored["correct"])


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("memory", "workers"), [(2**31, 0), (0, 0), pytest.param(0, 1, marks=pytest.mark.middle)])
@pytest.mark.parametrize("damage", ["truncated", "absent"])
def test_unreadable_images_are_named(sets, tmp_path, monkeypatch, memory, workers, damage):
    bad = pd.concat(sets[:2], ignore_index=True)  # 40 images: the sample whose size is taken leaves out the 8th
    path = tmp_path / "bad-one.png"
    if damage == "truncated":
        path.write_bytes(Path(bad["path"][7]).read_bytes()[:200])
    bad.loc[7, "path"] = str(path)
    monkeypatch.setattr(classifier_crops, "MEMORY", memory)
    with pytest.raises(ValueError, match=r"^cannot read .*(bad-one\.png|train-7)"):
        train(bad, *sets[1:], CLASSES, tmp_path / "run", with_settings(max_epochs=1, workers=workers), seed=SEED)
    assert not (tmp_path / "run").exists()


def test_sets_must_have_images_of_known_classes(sets, tmp_path):
    with pytest.raises(ValueError, match="'validation-2' has class 'blue'"):
        train(sets[0].query("`class` != 'blue'"), *sets[1:], ["red", "green"], tmp_path, SETTINGS, seed=SEED)
    with pytest.raises(ValueError, match="no test images"):
        train(*sets[:2], sets[2].iloc[:0], CLASSES, tmp_path, SETTINGS, seed=SEED)
    with pytest.raises(ValueError, match="1 training images in batches of 8 are too few"):
        train(sets[0].iloc[:1], *sets[1:], CLASSES, tmp_path, SETTINGS, seed=SEED)
