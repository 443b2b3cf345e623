"""Pretrained networks of timm, from folders that the tests write: what they see, what is trained of them, and how."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm import data as timm_data
from timm_folders import SIDE, write_resnet, write_vit
from tinted import CLASSES, SEED, ended, tinted

from augbench import images
from augbench.classifier import training
from augbench.classifier.averaging import Average
from augbench.classifier.crops import random_crop
from augbench.classifier.features import encode
from augbench.classifier.networks import Network
from augbench.classifier.scoring import evaluation_batches, examiner
from augbench.core.files import read_json
from augbench.study.optimizers import OPTIMIZERS
from augbench.study.schedules import SCHEDULES
from augbench.study.sections.classifier import Classifier

FINE_TUNED = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "schedule": "cosine", "warmup": 3}
FINE_TUNED |= {"layer_decay": 0.7, "ema": 0.9, "max_epochs": 3, "batch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def vit(folder):
    return write_vit(folder / "vit")


@pytest.fixture(scope="module")
def resnet(folder):
    return write_resnet(folder / "resnet")


@pytest.fixture(scope="module")
def sets(folder):
    return [tinted(folder, name, count, side=SIDE) for name, count in (("train", 25), ("validation", 15), ("test", 30))]


def pretrained(model, **settings) -> Classifier:
    return Classifier(model=model, weights="pretrained", **settings)


def contents(folder):
    training.forget(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# --- pictures


@pytest.mark.parametrize(
    "facts",
    [
        {"crop_pct": 0.9, "interpolation": "bicubic", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)},
        {"crop_pct": 1.0, "interpolation": "bilinear", "crop_mode": "squash"},
        {"crop_pct": 0.8, "crop_mode": "border"},
    ],
)
def test_pictures_are_seen_as_timm_transforms_them(tmp_path, facts):
    network = Network(pretrained(write_vit(tmp_path / "vit", **facts)), 3)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'vit'}")
    transform = timm_data.create_transform(**timm_data.resolve_model_data_config(theirs), is_training=False)
    rows, expected = [], []
    for number, size in enumerate([(300, 200), (97, 150), (64, 64), (20, 33)]):
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(pixels).save(path)
        rows.append({"image_id": path.name, "class": "red", "path": str(path)})
        expected.append(transform(Image.open(path)))
    (pixels,) = evaluation_batches(images.table(rows), network.view, 0).stream([(0, range(4), range(4))])
    assert pixels.dtype == torch.uint8
    assert torch.allclose(network.normalised(pixels), torch.stack(expected), atol=1e-6)


def test_training_crops_are_resized_as_the_model_says(folder, vit, resnet):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8))
    crop = random_crop(picture, SIDE, (1.0, 1.0), False, (0,), Network(pretrained(vit), 3).view.interpolation)
    assert np.array_equal(crop, picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    assert not np.array_equal(crop, picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def test_other_sizes_are_for_networks_that_take_them(vit, resnet):
    assert Network(pretrained(vit), 3).view.size == SIDE
    assert Network(pretrained(resnet, image_size=48), 3).view.size == 48
    sentence = f"{vit} takes images of 32 pixels alone; write `image_size: 32` or leave out `image_size`"
    for check in (Network, lambda settings, _: settings.library.check(settings.model, settings.image_size)):
        with pytest.raises(ValueError, match="alone") as error:
            check(pretrained(vit, image_size=64), 3)
        assert str(error.value) == sentence


# --- weights


def test_weights_are_those_of_the_folder_and_their_origin_is_noted(folder, vit):
    network = Network(pretrained(vit), 3)
    stored = load_file(folder / "vit" / "model.safetensors")
    mine = network.module.state_dict()
    assert all(torch.equal(mine[name], tensor) for name, tensor in stored.items() if not name.startswith("head"))
    assert mine["head.weight"].shape == (3, 48)
    digest = hashlib.sha256((folder / "vit" / "model.safetensors").read_bytes()).hexdigest()
    assert network.pretrained._asdict() == {
        "name": vit,
        "revision": None,
        "sha256": digest,
        "licence": "apache-2.0",
    }
    untrained = Network(Classifier(model=vit), 3)
    assert untrained.pretrained is None
    assert not torch.equal(untrained.module.state_dict()["blocks.0.mlp.fc1.weight"], stored["blocks.0.mlp.fc1.weight"])


def test_a_last_layer_of_as_many_other_classes_is_drawn_anew(folder, vit):
    mine = Network(pretrained(vit), 7).module.state_dict()["head.weight"]
    assert not torch.equal(mine, load_file(folder / "vit" / "model.safetensors")["head.weight"])


def test_weights_of_the_hub_are_noted_with_their_commit(tmp_path, monkeypatch):
    import huggingface_hub

    file = tmp_path / "snapshots" / "c0ffee" / "model.safetensors"
    file.parent.mkdir(parents=True)
    torch.manual_seed(5)
    theirs = timm.create_model("test_vit").state_dict()
    save_file(theirs, file)
    asked = []

    def download(repository, filename, revision):
        asked.append((repository, filename, revision))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    network = Network(pretrained("timm/test_vit.r160_in1k"), 3)
    assert asked == [("timm/test_vit.r160_in1k", "model.safetensors", None)]
    assert (network.pretrained.name, network.pretrained.revision) == ("timm/test_vit.r160_in1k", "c0ffee")
    assert network.pretrained.licence == "apache-2.0"
    mine = network.module.state_dict()
    assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items() if not name.startswith("head"))
    assert network.view.size == 160


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("timm/resnet5O.a1_in1k", "unknown model 'timm/resnet5O.a1_in1k'; did you mean 'timm/resnet50'"),
        ("local-dir:nowhere", "there is no config.json in nowhere; write it with `timm.models.save_for_hf(model, "),
    ],
)
def test_models_that_are_not_there_are_refused_without_loading_them(model, sentence):
    with pytest.raises(ValueError, match="there is no|unknown") as error:
        Classifier(model=model).library.check(model)
    assert str(error.value).startswith(sentence)


def test_unknown_weights_of_a_known_network_are_refused():
    with pytest.raises(ValueError, match="timm has no model timm/resnet50.none; timm has timm/resnet50.a1_in1k, "):
        Network(pretrained("timm/resnet50.none"), 3)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"weights": "pretrained"}, "there are no pretrained weights of resnet50 here: name a network of timm, e.g. "),
        ({"model": "timm/resnet50", "train": "head"}, "train: head needs a pretrained network: write `weights: pret"),
        ({"train": "heads"}, "there is no train 'heads', did you mean 'head'? (known: all, head, probe)"),
        ({"optimizer": "adamw"}, "optimizer: adamw needs a learning rate of its own, e.g. `learning_rate: 1e-5` for"),
        ({"budget": "steps", "steps": 9, "schedule": "plateau"}, "budget: steps goes with `schedule: cosine` alone"),
        ({"layer_decay": 0.7}, "layer_decay needs a network of timm, not resnet50: leave it out"),
        (
            {"model": "timm/x", "weights": "pretrained", "train": "head", "layer_decay": 0.7},
            "layer_decay is for `train: all`: leave it out where one layer alone is trained",
        ),
        (
            {"model": "timm/x", "weights": "pretrained", "train": "probe", "processes": 2},
            "a probe is fitted by one process: leave out `processes`, or write `train: head`",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(section, sentence):
    with pytest.raises(ValueError, match="Classifier") as error:
        Classifier(**section)
    assert sentence in str(error.value)


def test_the_papers_section_is_what_it_was():
    section = Classifier.default()
    assert (section.model, section.image_size, section.weights) == ("resnet50", 224, "none")
    assert (section.learning_rate, section.weight_decay) == (0.1, 1e-4)
    assert section.rate_schedule is SCHEDULES["plateau"]
    assert Classifier(budget="steps", steps=5).rate_schedule is SCHEDULES["cosine"]


# --- training


@pytest.mark.parametrize("network", ["vit", "resnet"])
def test_all_of_a_network_is_fine_tuned(sets, tmp_path, request, network):
    settings = pretrained(request.getfixturevalue(network), **FINE_TUNED)
    metrics = training.train(*sets, CLASSES, tmp_path, settings, seed=SEED)
    assert (metrics["epochs"], metrics["at_cap"]) == (3, False)
    assert metrics == read_json(tmp_path / "metrics.json")
    assert metrics["weights"]["licence"] == "apache-2.0"
    before = load_file(Path(settings.library.folder(settings.model)) / "model.safetensors")
    after = load_file(tmp_path / "best.safetensors")
    assert after.keys() == before.keys()
    learned = {name for name in after if after[name].shape == before[name].shape and after[name].is_floating_point()}
    assert all(not torch.equal(before[name], after[name]) for name in learned if "weight" in name)
    assert recognised(tmp_path, sets[2], settings) == correct_in(tmp_path)


def recognised(folder, table, settings):
    return [bool(hit) for _, hits in examiner(folder, CLASSES, settings)(table) for hit in hits]


def correct_in(folder):
    return list(pd.read_parquet(folder / "predictions.parquet")["correct"])


@pytest.mark.parametrize("network", ["vit", "resnet"])
def test_only_the_last_layer_is_trained(sets, tmp_path, request, network):
    settings = pretrained(
        request.getfixturevalue(network), train="head", learning_rate=0.01, batch_size=8, max_epochs=6
    )
    before, frozen = {}, {}
    original = training._Training.run

    def watched(self, *rest):
        before.update({name: value.clone() for name, value in self.network.module.state_dict().items()})
        at_cap = original(self, *rest)
        frozen.update(self.network.module.state_dict())
        return at_cap

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Training, "run", watched)
        metrics = training.train(*sets, CLASSES, tmp_path, settings, seed=SEED)
    stored = load_file(tmp_path / "best.safetensors")
    assert len(stored) == 2 and all(not torch.equal(stored[name], before[name]) for name in stored)
    changed = [name for name in before if not torch.equal(before[name], frozen[name])]
    assert sorted(changed) == sorted(stored)  # batch statistics stay, too
    assert metrics["accuracy"] > 45
    assert recognised(tmp_path, sets[2], settings) == correct_in(tmp_path)


@pytest.mark.middle  # takes seconds
@pytest.mark.parametrize("step", [2, 7])
@pytest.mark.parametrize("how", [FINE_TUNED, {"train": "head", "batch_size": 8, "max_epochs": 3, "ema": 0.9}])
def test_a_run_ended_by_sigterm_goes_on_to_the_same_bytes(sets, tmp_path, resnet, how, step):
    settings = pretrained(resnet, **how)
    training.train(*sets, CLASSES, tmp_path / "undisturbed", settings, seed=SEED)
    ended(sets, tmp_path / "ended", step, settings)
    seen = []
    training.train(
        *sets, CLASSES, tmp_path / "ended", settings, seed=SEED, progress=lambda done, total, note: seen.append(done)
    )
    assert seen == list(range((step - 1) // 3 + 1, 4))  # three steps an epoch
    assert contents(tmp_path / "ended") == contents(tmp_path / "undisturbed")


def test_a_state_of_other_weights_is_not_resumed(sets, tmp_path):
    settings = pretrained(write_resnet(tmp_path / "resnet"), train="head", batch_size=8, max_epochs=2)
    ended(sets, tmp_path / "run", 5, settings)
    file = tmp_path / "resnet" / "model.safetensors"
    weights = load_file(file)
    weights["fc.bias"] += 1
    save_file(weights, file)
    seen = []
    training.train(
        *sets, CLASSES, tmp_path / "run", settings, seed=SEED, progress=lambda done, total, note: seen.append(done)
    )
    assert seen == [1, 2]


def test_warm_up_and_cosine_worked_by_hand():
    settings = Classifier(schedule="cosine", learning_rate=0.8, warmup=4, max_epochs=2)
    rates = [settings.rate_schedule.rate([], step, 12, settings) for step in range(5)]
    cosine = [0.4 * (1 + np.cos(np.pi * step / 12)) for step in range(5)]
    assert rates == pytest.approx([cosine[0] / 4, cosine[1] / 2, cosine[2] * 3 / 4, cosine[3], cosine[4]])
    over = [settings.rate_schedule.is_over([1.0] * done, 2, settings) for done in (0, 1, 2)]
    assert over == [False, False, True]


def test_layers_learn_the_less_the_further_they_are_from_the_last(vit):
    settings = pretrained(vit, **FINE_TUNED)
    module = Network(settings, 3).module
    groups = settings.optimizer.of(module, settings).param_groups
    names = {weight: name for name, weight in module.named_parameters()}
    scales = {names[weight]: group["lr_scale"] for group in groups for weight in group["params"]}
    assert scales.keys() == set(names.values())
    assert scales["head.weight"] == 1
    assert scales["blocks.1.mlp.fc1.weight"] / scales["blocks.0.mlp.fc1.weight"] == pytest.approx(1 / 0.7)
    assert scales["patch_embed.proj.weight"] < scales["blocks.0.mlp.fc1.weight"]


def test_weight_decay_of_adamw_holds_for_matrices_alone(vit):
    settings = pretrained(vit, optimizer="adamw", learning_rate=1e-3, weight_decay=0.05)
    module = Network(settings, 3).module
    names = {weight: name for name, weight in module.named_parameters()}
    decays = {
        names[weight]: group["weight_decay"]
        for group in OPTIMIZERS["adamw"].of(module, settings).param_groups
        for weight in group["params"]
    }
    assert {name for name in decays if decays[name] == 0} == {
        name for name, weight in module.named_parameters() if weight.ndim < 2 or name in module.no_weight_decay()
    }
    sgd = OPTIMIZERS["sgd"].of(module, settings).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in sgd] == [(0.05, len(decays))]


def test_a_moving_average_worked_by_hand(resnet):
    network = Network(pretrained(resnet, train="head"), 3)
    bias = network.head.bias.data
    bias.zero_()
    average = Average(network, 0.15)
    for step, value in enumerate((1.0, 2.0)):
        bias.fill_(value)
        average.update(step)
    # Decays are 1/10, then 0.15 instead of 2/11.
    expected = 0.15 * 0.9 + 0.85 * 2.0
    with average.applied():
        assert network.head.bias[0].item() == pytest.approx(expected)
    assert network.head.bias[0].item() == 2.0


def test_features_are_timms(sets, resnet, vit):
    for model in (resnet, vit):
        network = Network(pretrained(model, train="probe"), 1)
        theirs = timm.create_model(model, pretrained=True, num_classes=0).eval()
        transform = timm_data.create_transform(**timm_data.resolve_model_data_config(theirs), is_training=False)
        with torch.inference_mode():
            expected = theirs(torch.stack([transform(Image.open(path)) for path in sets[0]["path"]]))
        assert np.allclose(encode(network, sets[0], 0), expected.numpy(), atol=1e-4)
