"""Augmentations against torchvision's own on the same draws, the mixing of added images against counts by hand."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tinted import CLASSES, SEED, tinted, untrained, with_settings
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

from augbench.classifier import augmenting, networks, training
from augbench.classifier import crops as classifier_crops
from augbench.classifier.crops import random_crop
from augbench.classifier.mixing import Mixing
from augbench.classifier.schedule import epoch_order
from augbench.core.seeds import derive
from augbench.study import budgets
from augbench.study.architectures import MEAN, STD
from augbench.study.augments import AUGMENTS
from augbench.study.budgets import BUDGETS
from augbench.study.recipes import Mix, Recipe

BILINEAR = v2.InterpolationMode.BILINEAR
IMAGES = {
    "randaugment": v2.RandAugment(2, 9, interpolation=BILINEAR),
    "trivialaugment": v2.TrivialAugmentWide(31, BILINEAR),
}
BATCHES = {"mixup": v2.MixUp(alpha=0.2, num_classes=4), "cutmix": v2.CutMix(alpha=1.0, num_classes=4)}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tinted")
    return [tinted(folder, "train", 25), tinted(folder, "validation", 15), tinted(folder, "test", 30)]


def by_torchvision(transform, sample, *key):
    """With the process's own generator, seeded by the key."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(*key))
        return transform(sample)


def test_every_augment_is_compared_with_torchvisions():
    assert set(AUGMENTS) == set(IMAGES) | set(BATCHES)
    assert {name for name, augment in AUGMENTS.items() if augment.mixes_batches} == set(BATCHES)


@pytest.mark.parametrize("name", IMAGES)
def test_pictures_are_changed_as_by_torchvision_on_the_same_draws(name):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    augment, changed = augmenting.of_images(AUGMENTS[name], (7,)), set()
    before = torch.get_rng_state()
    for draw in range(60):
        found = np.asarray(augment(picture, 2, draw))
        assert np.array_equal(found, by_torchvision(IMAGES[name], picture, 7, "augment", 2, draw))
        changed.add(found.tobytes())
    assert len(changed) > 40
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", BATCHES)
def test_batches_are_mixed_as_by_torchvision_on_the_same_draws(name):
    pictures, labels = torch.randn(6, 3, 16, 16), torch.tensor([0, 3, 1, 1, 2, 0])
    mix, before = augmenting.of_batches(AUGMENTS[name], 4, (7,)), torch.get_rng_state()
    assert mix is not None
    for place in range(30):
        images, weights = mix((pictures, labels), 2, place, 0)
        own, own_weights = by_torchvision(BATCHES[name], (pictures, labels), 7, "augment", 2, place, 0)
        assert torch.equal(images, own) and torch.equal(weights, own_weights)
        assert weights.sum(1) == pytest.approx(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert augmenting.of_images(AUGMENTS[name], (7,))("as it is", 1, 2) == "as it is"


def plain_losses(sets, name, epochs):
    """Training losses of a plain loop around torchvision's own transforms: batches are normalised, then mixed."""
    size = 16
    torch.manual_seed(derive(SEED, "classifier", "weights"))
    model = untrained("small_cnn", len(CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    normalise = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    transforms = IMAGES | {"mixup": v2.MixUp(alpha=0.2, num_classes=3), "cutmix": v2.CutMix(alpha=1.0, num_classes=3)}
    rows, losses = list(sets[0].itertuples()), []
    for epoch in range(1, epochs + 1):
        total = 0.0
        for place, batch in enumerate(epoch_order(len(rows), 8, SEED, epoch)):
            crops = [
                random_crop(Image.open(rows[i].path), size, (0.08, 1.0), True, (SEED, "classifier", epoch, int(i)))
                for i in batch
            ]
            key = SEED, "classifier", "augment", epoch
            target = torch.tensor([CLASSES.index(rows[i][2]) for i in batch])
            if name in IMAGES:
                crops = [by_torchvision(IMAGES[name], crop, *key, int(i)) for crop, i in zip(crops, batch, strict=True)]
            pixels = torch.stack([normalise(crop) for crop in crops])
            if name in BATCHES:
                pixels, target = by_torchvision(transforms[name], (pixels, target), *key, place, 0)
            loss = cross_entropy(model(pixels), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(rows))
    return losses


@pytest.mark.parametrize("name", [*AUGMENTS, None])
def test_a_training_is_that_of_a_plain_loop_with_torchvisions_transform(sets, tmp_path, name):
    recipe = Recipe(augment=name)
    training.train(*sets, CLASSES, tmp_path, with_settings(max_epochs=3), seed=SEED, recipe=recipe)
    losses = pd.read_csv(tmp_path / "history.csv")["train_loss"].to_numpy()
    assert losses == pytest.approx(plain_losses(sets, name, 3), abs=1e-4)


def outputs(folder):
    training.forget(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


RECIPES = {
    "randaugment": Recipe(augment="randaugment"),
    "cutmix": Recipe(augment="cutmix", mix=Mix(weight=0.3)),
    "probability": Recipe(augment="trivialaugment", mix=Mix(probability=0.5)),
}


@pytest.mark.parametrize("budget", [{}, {"budget": BUDGETS["steps"], "steps": 14}])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_the_same_bytes_twice_and_after_an_end(sets, tmp_path, monkeypatch, name, budget):
    monkeypatch.setattr(budgets, "VALIDATIONS", 4)  # of the fixed steps, after 3, 7, 10 and 14: in the middle of epochs
    settings, job = with_settings(max_epochs=4, **budget), {"seed": SEED, "added": 9, "recipe": RECIPES[name]}
    training.train(*sets, CLASSES, tmp_path / "one", settings, **job)
    steps, original = [], networks.Network.step

    def counted(*arguments):
        steps.append(0)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(networks.Network, "step", counted)
        training.train(*sets, CLASSES, tmp_path / "two", settings, **job)
    training.train(*sets, CLASSES, tmp_path / "two", settings, **job)
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")


@pytest.mark.parametrize("workers", [0, *(pytest.param(number, marks=pytest.mark.middle) for number in (1, 2))])
def test_how_augmented_images_are_read_changes_nothing(sets, tmp_path, monkeypatch, workers):
    job = {"seed": SEED, "added": 9, "recipe": RECIPES["probability"]}
    training.train(*sets, CLASSES, tmp_path / "kept", with_settings(max_epochs=2), **job)
    monkeypatch.setattr(classifier_crops, "MEMORY", 0)
    training.train(*sets, CLASSES, tmp_path / "read", with_settings(max_epochs=2, workers=workers), **job)
    assert outputs(tmp_path / "kept") == outputs(tmp_path / "read")


def test_threads_that_augment_ahead_change_nothing(sets):
    augment = augmenting.of_images(AUGMENTS["randaugment"], (SEED,))
    data = classifier_crops.training_batches(sets[0], 16, (0.5, 1.0), True, (SEED,), 3, augment).keep()
    requests = [(epoch, part, part) for epoch in (1, 2, 3) for part in np.arange(24).reshape(6, 4)]
    alone = [batch.clone() for batch in data.stream(requests)]
    data.pinned = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_crops, "_allocate", lambda shape, pinned: torch.empty(shape, dtype=torch.uint8))
        ahead = list(data.stream(requests))
    assert all(torch.equal(one, other) for one, other in zip(alone, ahead, strict=True))


@pytest.mark.parametrize("recipe", [Recipe(augment="mixup"), Recipe(mix=Mix(weight=0.3))])
def test_the_state_of_another_recipe_is_not_resumed(sets, tmp_path, recipe):
    settings = with_settings(max_epochs=2)
    training.train(*sets, CLASSES, tmp_path, settings, seed=SEED, added=9, recipe=recipe)
    seen = []
    training.train(*sets, CLASSES, tmp_path, settings, seed=SEED, added=9, progress=lambda done, *_: seen.append(done))
    assert seen == [1, 2]


# --- mixing ---------------------------------------------------------------------------------------------

LABELS = np.array([0, 0, 0, 1, 1, 2, 1, 0, 1, 0, 0])  # six real images, then five added ones; none of class 2


def test_weights_by_hand():
    """Six real and four added images: at a share of 0.2 each added one weighs 0.2 x 10 / 4, each real 0.8 x 10 / 6."""
    mixing = Mixing(Mix(weight=0.2), np.zeros(10, int), 4, seed=0)
    assert mixing.weights_of(np.array([0, 9, 5, 6])) == pytest.approx([8 / 6, 0.5, 8 / 6, 0.5])
    weights = mixing.weights_of(np.arange(10))
    assert (weights.sum(), weights[6:].sum()) == (pytest.approx(10), pytest.approx(2))
    assert mixing.size == 10 and list(mixing.positions(1)) == list(range(10))
    assert Mixing(Mix(weight=0.2), np.zeros(6, int), 0, 0).weights_of(np.arange(6)) is None
    assert Mixing(None, LABELS, 5, 0).weights_of(np.arange(6)) is None


def test_the_loss_of_weighted_images_by_hand(sets, tmp_path, monkeypatch):
    """Of one step on all 25 images, of which 10 are added: the weighted mean of single losses."""
    settings = with_settings(max_epochs=1, batch_size=25, learning_rate=1e-9)
    singles, original = [], networks.Network._update

    def watched(self, pixels, target, *rest):
        with torch.no_grad():
            labels = target.argmax(1)
            singles.append(
                (cross_entropy(self.logits(self.normalised(pixels)), labels, reduction="none"), target.sum(1))
            )
        return original(self, pixels, target, *rest)

    monkeypatch.setattr(networks.Network, "_update", watched)
    job = {"seed": SEED, "added": 10, "recipe": Recipe(mix=Mix(weight=0.25))}
    training.train(*sets, CLASSES, tmp_path, settings, **job)
    ((losses, weights),) = singles
    heavy = weights > 1
    assert heavy.sum() == 15
    assert pd.read_csv(tmp_path / "history.csv")["train_loss"][0] == pytest.approx(
        (0.75 * losses[heavy].mean() + 0.25 * losses[~heavy].mean()).item(), abs=1e-5
    )


def test_images_are_replaced_by_added_ones_of_their_class():
    mixing = Mixing(Mix(probability=1.0), LABELS, 5, seed=0)
    assert mixing.size == 6
    drawn = np.stack([mixing.positions(epoch) for epoch in range(1, 201)])
    assert set(drawn[:, :3].ravel()) == {7, 9, 10}
    assert set(drawn[:, 3:5].ravel()) == {6, 8}
    assert set(drawn[:, 5]) == {5}  # nothing was added to its class
    counts = np.unique(drawn[:, :3], return_counts=True)[1]
    assert counts == pytest.approx(200, abs=50)  # 600 draws of three images


def test_the_probability_is_that_of_an_added_image():
    labels = np.repeat([0, 1, 0, 1], [500, 500, 30, 5])
    mixing = Mixing(Mix(probability=0.3), labels, 35, seed=4)
    first, second = mixing.positions(1), mixing.positions(2)
    for positions in (first, second):
        replaced = positions >= 1000
        assert replaced.sum() == pytest.approx(300, abs=60)  # four standard deviations of a binomial
        assert np.array_equal(positions[~replaced], np.flatnonzero(~replaced))
        assert np.array_equal(labels[positions], labels[:1000])
    assert not np.array_equal(first, second)
    assert np.array_equal(first, Mixing(Mix(probability=0.3), labels, 35, seed=4).positions(1))


def test_an_image_that_stands_in_twice_is_cropped_twice(sets, tmp_path, monkeypatch):
    """An epoch is as long as that of the target alone, and each draw has a crop of its own."""
    requests, original = [], classifier_crops.Batches.stream

    def watched(self, asked):
        requests.extend(asked)
        return original(self, asked)

    monkeypatch.setattr(classifier_crops.Batches, "stream", watched)
    job = {"seed": SEED, "added": 3, "recipe": Recipe(mix=Mix(probability=1.0))}
    metrics = training.train(*sets, CLASSES, tmp_path, with_settings(max_epochs=1), **job)
    assert (metrics["images_seen"], metrics["steps"], metrics["n_train"]) == (22, 3, 25)
    _, positions, draws = zip(*requests[:3], strict=True)
    assert set(np.concatenate(positions)) == {22, 23, 24}
    assert sorted(np.concatenate(draws)) == list(range(22))


def test_millions_of_images_are_mixed_without_a_loop():
    labels = np.random.default_rng(0).integers(0, 1000, 2_300_000)
    mixing = Mixing(Mix(probability=0.5), labels, 1_100_000, seed=0)
    assert (mixing.positions(1) >= 1_200_000).mean() == pytest.approx(0.5, abs=0.01)
