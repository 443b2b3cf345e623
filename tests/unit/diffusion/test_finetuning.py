"""The fine-tuner on tiny pipelines of the real classes: what changes, what it minimises, and what a kill costs."""

import contextlib
import hashlib
import itertools
import math
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from kills import kill_at_call

from augbench import images
from augbench.core import files
from augbench.diffusion import candidates, finetuning, latents, objective, sampling, selection, trainer
from augbench.diffusion.candidates import history_file
from augbench.diffusion.optimizer import Optimizer
from augbench.diffusion.sampler import Sampler
from augbench.diffusion.sampling_plan import batches, plan
from augbench.diffusion.text_encodings import TextEncodings
from augbench.diffusion.trained_model import TrainedModel
from augbench.digits import data
from augbench.jobs import launching
from augbench.study import pseudo_words
from augbench.study.methods import Method
from augbench.study.sections.diffusion import Finetune, Generate

CLASSES = [
    {"class": "three", "lemmas": "three, trey", "hypernyms": "digit, figure", "definition": "one more than two"},
    {"class": "six", "lemmas": "half a dozen, six", "hypernyms": "digit, figure", "definition": "a cube's faces"},
]
ROWS = yaml.safe_load(Path("config/methods.yaml").read_text())["methods"]
METHODS = ["ft_conditioning", "ft_cluster_conditioning_k5", "imagic", "textual_inversion", "pseudoword_dm", "unet_only"]
TRAINED = {  # what may change, and nothing else
    "ft_conditioning": {"conditioning"},
    "ft_cluster_conditioning_k5": {"conditioning"},
    "imagic": {"conditioning", "unet"},
    "textual_inversion": {"pseudo_word"},
    "pseudoword_dm": {"pseudo_word", "unet"},
    "unet_only": {"unet"},
}
OWN = {
    "title": "DM only",
    "family": "fine-tuning",
    "conditioning": "clip_prompts",
    "trained": ["unet"],
    "start": "noise",
}
SETTINGS = Finetune(
    learning_rates={"conditioning": 5e-3, "pseudo_word": 5e-3, "unet": 2e-4},
    batch_size=8,
    images_at_a_time=3,
    max_epochs=3,
    validation_images=100,
    gradient_checkpointing=False,
)
SAMPLING = Generate(image_size=32, steps=3, guidance=2.0)


def method_of(name, **changes):
    """A row of the method table; ``unet_only`` is the row that the README shows."""
    return Method(**((ROWS | {"unet_only": OWN})[name] | changes))


@pytest.fixture(scope="module")
def target(world, tmp_path_factory):
    """A real target of two classes: image tables, latents, and clusters that are simply dealt out."""
    folder = tmp_path_factory.mktemp("target")
    data.write_target(folder / "images", folder / "classes.csv", seed=3, test=600, web=900)
    files.write_csv(folder / "dataset.csv", pd.DataFrame(CLASSES).assign(train=10, excluded=""))
    tables, members = {}, []
    for split, part in (("train", slice(0, 10)), ("validation", slice(10, 16))):
        rows = []
        for class_row in CLASSES:
            for path in sorted((folder / "images" / "train" / class_row["class"]).glob("*.png"))[part]:
                rows.append({"image_id": path.stem, "class": class_row["class"], "path": str(path)})
        tables[split] = images.table(rows)
        images.write(folder / f"{split}.parquet", tables[split])
        dealt = [i % 3 for i in range(len(rows))]
        members.append(tables[split][["image_id", "class"]].assign(split=split, k=5, cluster=dealt))
    pd.concat(members).to_parquet(folder / "clusters.parquet")
    encode = {folder / f"{name}.parquet": folder / f"{name}.safetensors" for name in tables}
    latents.encode(world.backbone, encode, image_size=32, mirrored=True, threads=1)
    stored = {name: latents.read(folder / f"{name}.safetensors", table) for name, table in tables.items()}
    return SimpleNamespace(folder=folder, tables=tables, latents=stored, clusters=list(members[0]["cluster"]))


def arguments(world, target, name, folder, *, inputs=(), candidates=None, save_minutes=10, rate=1.0, **changes):
    """Arguments of a fine-tuning of this method; ``changes`` are keys of the section."""
    method = method_of(name, **({"candidates": candidates} if candidates else {}))
    paths = {
        "backbone": world.backbone,
        "classes": target.folder / "dataset.csv",
        "train": target.folder / "train.parquet",
        "validation": target.folder / "validation.parquet",
        "train_latents": target.folder / "train.safetensors",
        "validation_latents": target.folder / "validation.safetensors",
        "clusters": target.folder / "clusters.parquet" if method.clusters > 1 else [],
    } | dict(inputs)
    return {
        "inputs": finetuning.FinetuneInputs.model_validate(paths),
        "method": method,
        "settings": Finetune.model_validate(SETTINGS.model_dump() | changes),
        "folder": str(folder),
        "rate": rate,
        "seed": 5,
        "save_minutes": save_minutes,
    }


@contextlib.contextmanager
def kept_models():
    """The models that fine-tunings make meanwhile, each with its state before."""
    models = []

    class Kept(TrainedModel):
        def __init__(self, *given):
            super().__init__(*given)
            self.before = {name: value.clone() for name, value in self.state_dict().items()}
            models.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "TrainedModel", Kept)
        yield models


def contents(folder):
    """Digests of a fine-tuning's candidates and losses."""
    written = [*sorted(folder.iterdir()), history_file(folder)]
    names = [path.name for path in written[:-1]] + ["losses"]
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in zip(names, written, strict=True)}


@pytest.fixture(scope="module")
def runs(world, target, tmp_path_factory):
    """Each method fine-tuned once: the folder, and the model before and after."""

    def run(method):
        if method not in made:
            folder = tmp_path_factory.mktemp("finetune") / "lr-1"
            with kept_models() as models:
                finetuning.finetune(**arguments(world, target, method, folder))
            made[method] = SimpleNamespace(folder=folder, model=models[0], before=models[0].before)
        return made[method]

    made = {}
    return run


@pytest.mark.parametrize("method", METHODS)
def test_exactly_the_declared_parts_change(runs, method):
    run = runs(method)
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, run.before[name])}
    assert {name.split(".")[0] for name in changed} == TRAINED[method] | (
        {"text_encoder"} if "pseudo_word" in TRAINED[method] else set()
    )
    # The pseudo-words hang in the text encoder as well; its own table, and all else there, is as it was.
    assert {name for name in changed if name.startswith("text_encoder")} <= {
        "text_encoder.embeddings.token_embedding.words"
    }
    if "unet" in TRAINED[method]:
        unet = {name for name in run.before if name.startswith("unet.")}
        assert {name for name in changed if name.startswith("unet.")} == unet
    candidate = candidates.load(run.folder / f"{method_of(method).candidates[0]}.safetensors")
    assert {name.split(".")[0] for name in candidate} == TRAINED[method]


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_on_a_fixed_noised_batch_falls(world, target, method):
    from diffusers import StableDiffusionPipeline

    method = method_of(method)
    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone)
    random = torch.Generator().manual_seed(0)
    means = target.latents["train"]["parameters"].chunk(2, dim=1)[0] * pipeline.vae.config.scaling_factor
    noise = torch.randn(means.shape, generator=random)
    steps = torch.linspace(50, 950, len(means)).long()
    model = TrainedModel(pipeline, CLASSES, method, SETTINGS)
    clusters = target.clusters if method.clusters > 1 else None
    guides = method.guide.of_images(target.tables["train"], CLASSES, method, clusters, model)
    schedule = objective.noise_schedule(pipeline.scheduler)
    optimizer = Optimizer(model, dict.fromkeys(method.trained, 3e-3))
    course = []
    for _ in range(12):
        given = (model, schedule, means, noise, steps, guides(torch.arange(len(means)), 1))
        model.begin(given[-1])
        loss = objective.losses(*given).mean()
        loss.backward()
        optimizer.step()
        optimizer.clear()
        course.append(loss.item())
    assert course[-1] < course[0] - 1e-5
    assert sum(after < before for before, after in itertools.pairwise(course)) > 8


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_candidate_generates_the_same_bytes_as_the_one_in_memory(world, runs, tmp_path, method):
    run, trained = runs(method), method_of(method)
    last = pd.read_csv(history_file(run.folder))["epoch"].iloc[-1]
    states = {"memory": run.model.candidate(), "file": candidates.load(run.folder / f"epoch-{last}.safetensors")}
    sizes = {class_row["class"]: [4, 3, 3] for class_row in CLASSES} if trained.clusters > 1 else None
    rows = plan(CLASSES, [3, 3], trained, (1, method), cluster_sizes=sizes)
    made = {}
    for name, state in states.items():
        work = sampling.Work(
            lambda state=state: Sampler(world.backbone, trained, SAMPLING).use(state),
            batches(rows, 4),
            (1, method),
            "c",
            name,
        )
        sampling.write_shard([work], tmp_path / f"{name}.tar", tmp_path / f"{name}.parquet")
        table = images.read(tmp_path / f"{name}.parquet")
        made[name] = [images.load_bytes(row) for row in table.itertuples()]
    assert made["memory"] == made["file"]
    expected = [0, 1, 2, 0, 1, 2] if trained.clusters > 1 else []
    assert list(table["cluster"].dropna()) == expected


def test_one_sampler_can_take_one_candidate_after_another(world, runs):
    """Another candidate's images, and then the same as before."""
    method, folder = method_of("pseudoword_dm"), runs("pseudoword_dm").folder
    rows = plan(CLASSES, [2, 2], method, (1, "pseudoword_dm"))
    one, other = (candidates.load(folder / f"epoch-{i}.safetensors") for i in (1, 3))
    sampler = Sampler(world.backbone, method, SAMPLING)

    def drawn(candidate):
        pictures = sampler.use(candidate).draw([dict(row) for row in rows], (1, "pseudoword_dm"))
        return [picture.tobytes() for picture in pictures]

    first = drawn(one)
    assert drawn(other) != first
    assert drawn(one) == first


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_objective_is_a_plain_reference_step(world, target, prediction):
    """Encode, add noise, predict, mean squared error, with nothing but diffusers."""
    from diffusers import DDPMScheduler, StableDiffusionPipeline
    from PIL import Image

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone)
    pipeline.scheduler.register_to_config(prediction_type=prediction)
    table = target.tables["train"].iloc[:6]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in table["path"]])
    pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        posterior = pipeline.vae.encode(pixels).latent_dist
        first, noise = (torch.randn(posterior.mean.shape, generator=random) for _ in range(2))
        reference = (posterior.mean + posterior.std * first) * pipeline.vae.config.scaling_factor
        steps = torch.tensor([1, 100, 300, 500, 700, 998])
        tokens = pipeline.tokenizer(
            [f"A photo of {word}." for word in ("three,trey", "halfadozen,six")],
            padding="max_length",
            return_tensors="pt",
        ).input_ids
        guides = pipeline.text_encoder(tokens)[0][[0, 0, 0, 1, 1, 1]]
        schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
        noisy = schedule.add_noise(reference, noise, steps)
        wanted = {"epsilon": noise, "v_prediction": schedule.get_velocity(reference, noise, steps)}[prediction]
        predicted = pipeline.unet(noisy, steps, encoder_hidden_states=guides).sample
        plain = torch.nn.functional.mse_loss(predicted, wanted).item()

        model = TrainedModel(pipeline, CLASSES, method_of("ft_conditioning"), SETTINGS)
        stored = target.latents["train"]["parameters"][:6]
        ours = objective.sample_posterior(stored, first, pipeline.vae.config.scaling_factor)
        found = objective.losses(
            model, objective.noise_schedule(pipeline.scheduler), ours, noise, steps, torch.tensor([0, 0, 0, 1, 1, 1])
        )
    assert found.mean().item() == pytest.approx(plain, abs=1e-5)


def test_mirrored_images_are_encoded_as_such(world, target):
    from diffusers import AutoencoderKL
    from PIL import Image, ImageOps

    vae = AutoencoderKL.from_pretrained(world.backbone / "vae")
    picture = ImageOps.mirror(Image.open(target.tables["train"]["path"].iloc[3]).convert("RGB"))
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        wanted = vae.encode(pixels).latent_dist.parameters[0]
    assert torch.allclose(target.latents["train"]["mirrored"][3], wanted, atol=1e-5)


@pytest.mark.parametrize("method", ["ft_cluster_conditioning_k5", "textual_inversion"])
def test_each_image_is_guided_by_what_its_class_and_cluster_learn(world, target, method):
    """Fine-tuner and sampler agree on which row of what is learned belongs to whom."""
    from transformers import CLIPTokenizer

    method, table = method_of(method), target.tables["train"]
    tokenizer = CLIPTokenizer.from_pretrained(world.backbone / "tokenizer")
    clusters = target.clusters if method.clusters > 1 else None
    guides = method.guide.of_images(
        table, CLASSES, method, clusters, SimpleNamespace(tokenize=partial(pseudo_words.tokenize, tokenizer))
    )
    found = guides(torch.arange(len(table)), 1, "key")
    number = [[about["class"] for about in CLASSES].index(key) for key in table["class"]]
    if clusters:
        assert found.tolist() == [5 * n + k for n, k in zip(number, clusters, strict=True)]
    else:
        assert [[int(t) for t in tokens if t >= len(tokenizer)] for tokens in found] == [
            [len(tokenizer) + n] for n in number
        ]


def test_the_order_in_which_a_row_lists_its_parts_changes_nothing(world):
    """Sums over parameters are in one order, and so the low bits of a step."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone)
    model = TrainedModel(pipeline, CLASSES, method_of("imagic", trained=["unet", "conditioning"]), SETTINGS)
    assert [part.name for part in model.groups] == ["conditioning", "unet"]


@pytest.mark.parametrize("template", ["a photo of {p}.", "{p}, by night", "the {p}'s photo"])
def test_a_pseudo_word_is_found_beside_punctuation(world, template):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(world.backbone / "tokenizer")
    prompt = template.replace("{p}", "<six>")
    tokens = pseudo_words.tokenize(tokenizer, [prompt], [("<six>", 1)])
    assert (tokens == len(tokenizer) + 1).sum() == 1
    with pytest.raises(ValueError, match="the pseudo-word is cut off"):
        pseudo_words.tokenize(tokenizer, ["very " * 80 + "<six>"], [("<six>", 1)])


def test_conditionings_start_as_the_encoding_of_the_simple_prompt(world, runs):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone)
    tokens = pipeline.tokenizer("A photo of halfadozen,six.", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        wanted = pipeline.text_encoder(tokens)[0][0]
    start = runs("ft_cluster_conditioning_k5").before["conditioning.table"]
    assert start.shape[0] == 2 * 5
    for row in start[5:]:
        assert torch.allclose(row, wanted, atol=1e-5)


def test_pseudo_words_start_as_the_last_word_of_the_first_lemma(world):
    """A word of several tokens starts as their mean."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(world.backbone / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(world.backbone / "text_encoder")
    rows = pseudo_words.initial(tokenizer, encoder, ["tiger shark, Galeocerdo cuvieri", "xylocarp, nut"])
    table = encoder.get_input_embeddings().weight
    assert torch.equal(rows[0], table[tokenizer.convert_tokens_to_ids("shark</w>")])
    pieces = tokenizer("xylocarp", add_special_tokens=False).input_ids
    assert len(pieces) > 1
    assert torch.equal(rows[1], table[pieces].mean(0))


def test_a_pseudo_word_is_read_as_the_word_whose_embedding_it_has(world):
    """With the embedding of "three" in it, a prompt around the pseudo-word is the prompt around "three"."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone)
    plain = TextEncodings(pipeline.tokenizer, pipeline.text_encoder)(["a photo of a three"])
    table = pipeline.text_encoder.get_input_embeddings().weight
    words = torch.stack([torch.zeros(table.shape[1]), table[pipeline.tokenizer.convert_tokens_to_ids("three</w>")]])
    encoder = pseudo_words.attach(pipeline.tokenizer, pipeline.text_encoder, words)
    encode = TextEncodings(pipeline.tokenizer, encoder)
    assert torch.equal(encode(["a photo of a <a.b c>"], [("<a.b c>", 1)]), plain)
    assert not torch.equal(encode(["a photo of a <a.b c>"], [("<a.b c>", 0)]), plain)


# --- when it stops, and what it keeps -------------------------------------------------------------------


def history(*losses):
    return [{"epoch": i, "train_loss": 1 / i, "validation_loss": loss} for i, loss in enumerate(losses, 1)]


def test_training_stops_when_the_validation_loss_stagnates_or_rises():
    assert not finetuning.stagnates(history(3, 2, 1), 2)
    assert not finetuning.stagnates(history(3, 2, 2), 2)
    assert finetuning.stagnates(history(3, 2, 2, 2), 2)
    assert finetuning.stagnates(history(3, 2, 4, 5), 2)
    assert not finetuning.stagnates(history(1, 2, 3), 2, least=4)


def test_candidates_are_what_the_history_says(runs):
    run = runs("textual_inversion")
    losses = pd.read_csv(history_file(run.folder)).set_index("epoch")
    found = pd.read_csv(run.folder / "candidates.csv").set_index("candidate")
    assert list(found.index) == method_of("textual_inversion").candidates
    assert found.loc["best_train", "epoch"] == losses["train_loss"].idxmin()
    assert found.loc["best_validation", "epoch"] == losses["validation_loss"].idxmin()
    for name, epoch in found["epoch"].items():
        same = candidates.load(run.folder / f"epoch-{epoch}.safetensors")
        for key, value in candidates.load(run.folder / f"{name}.safetensors").items():
            assert torch.equal(value, same[key])
    names = ["losses", "candidates.csv", *(f"{name}.safetensors" for name in found.index)]
    assert sorted(contents(run.folder)) == sorted(names)


def test_a_method_without_best_candidates_is_trained_to_its_last(world, target, tmp_path):
    changes = {"max_epochs": 40, "patience": 1, "learning_rates": {"conditioning": 1e-9, "unet": 1e-9}}
    numbered = ["epoch-1", "epoch-2"]
    finetuning.finetune(**arguments(world, target, "imagic", tmp_path / "lr-1", candidates=numbered, **changes))
    assert len(pd.read_csv(history_file(tmp_path / "lr-1"))) == 2


# --- kills and processes --------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 3, 7])  # three steps are an epoch
def test_a_run_ended_by_sigterm_goes_on_to_the_same_bytes(world, target, runs, tmp_path, step):
    done, original = [], trainer.losses

    def counted(*given):
        done.append(0)
        if len(done) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*given)

    given = arguments(world, target, "pseudoword_dm", tmp_path / "lr-1")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(trainer, "losses", counted)
        finetuning.finetune(**given)
    assert end.value.code == 143
    assert not (tmp_path / "lr-1").exists()
    finetuning.finetune(**given)
    assert contents(tmp_path / "lr-1") == contents(runs("pseudoword_dm").folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lr-1", "lr-1.csv"]


@pytest.mark.parametrize("step", [4, 22])  # in the first epoch and in the last
def test_a_killed_run_goes_on_from_the_last_state_to_the_same_bytes(world, target, runs, tmp_path, step):
    given = arguments(world, target, "pseudoword_dm", tmp_path / "lr-1", save_minutes=1e-9)
    kill_at_call(step, trainer, "losses", lambda: finetuning.finetune(**given))
    assert (tmp_path / ".lr-1.partial" / finetuning.STATE).exists()
    finetuning.finetune(**given)
    assert contents(tmp_path / "lr-1") == contents(runs("pseudoword_dm").folder)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["textual_inversion", "imagic", "ft_cluster_conditioning_k5"])
def test_two_processes_give_the_same_loss_curve_as_one(world, target, runs, tmp_path, method):
    given = arguments(world, target, method, tmp_path / "lr-1")
    launching.run(finetuning.finetune, given, tmp_path / "processes", processes=2, threads=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lr-1", "lr-1.csv"]
    one, two = (pd.read_csv(history_file(folder)) for folder in (runs(method).folder, tmp_path / "lr-1"))
    assert len(one) == len(two)
    assert np.abs(one - two).to_numpy().max() < 1e-4


@pytest.mark.slow
def test_processes_with_unequal_parts_of_a_batch_agree_too(world, target, tmp_path):
    """Batches of 9, 9 and 2 images: of a batch, one process takes two parts and the other one."""
    changes = {"batch_size": 9, "images_at_a_time": 4}
    finetuning.finetune(**arguments(world, target, "imagic", tmp_path / "one", **changes))
    given = arguments(world, target, "imagic", tmp_path / "two", **changes)
    launching.run(finetuning.finetune, given, tmp_path / "processes", processes=2, threads=1)
    one, two = (pd.read_csv(history_file(tmp_path / name)) for name in ("one", "two"))
    assert np.abs(one - two).to_numpy().max() < 1e-4


def test_how_many_images_are_in_memory_changes_nothing_but_low_bits(world, target, runs, tmp_path):
    given = arguments(world, target, "imagic", tmp_path / "lr-1", images_at_a_time=8)
    finetuning.finetune(**given)
    one, two = (pd.read_csv(history_file(folder)) for folder in (runs("imagic").folder, tmp_path / "lr-1"))
    assert np.abs(one - two).to_numpy().max() < 1e-4


def test_gradient_checkpointing_changes_no_loss(world, target, runs, tmp_path):
    given = arguments(world, target, "imagic", tmp_path / "lr-1", gradient_checkpointing=True)
    with kept_models() as models:
        finetuning.finetune(**given)
    assert models[0].unet.is_gradient_checkpointing
    one, two = (pd.read_csv(history_file(folder)) for folder in (runs("imagic").folder, tmp_path / "lr-1"))
    assert np.abs(one - two).to_numpy().max() < 1e-4


def test_a_state_of_another_run_is_not_resumed(world, target, runs, tmp_path):
    shutil.copytree(runs("imagic").folder, tmp_path / ".lr-1.partial")
    from augbench.core import resume

    resume.save(tmp_path / ".lr-1.partial" / finetuning.STATE, "another", {}, {"trained": {"a": torch.zeros(1)}})
    finetuning.finetune(**arguments(world, target, "pseudoword_dm", tmp_path / "lr-1"))
    assert contents(tmp_path / "lr-1") == contents(runs("pseudoword_dm").folder)


@pytest.mark.parametrize(
    ("method", "part"), [("ft_conditioning", "conditioning"), ("textual_inversion", "pseudo_word")]
)
def test_what_no_image_is_guided_by_stays_as_it_is(world, target, tmp_path, method, part):
    """The second class has no image; weight decay would pull at what was not learned for it."""
    only = target.tables["train"].iloc[:10]
    assert set(only["class"]) == {"three"}
    images.write(tmp_path / "only.parquet", only)
    some = {name: value[:10] for name, value in target.latents["train"].items()}
    latents.write(tmp_path / "only.safetensors", only["image_id"], some)
    inputs = {"train": tmp_path / "only.parquet", "train_latents": tmp_path / "only.safetensors"}
    with kept_models() as models:
        finetuning.finetune(**arguments(world, target, method, tmp_path / "lr-1", inputs=inputs, max_epochs=1))
    learned = candidates.load(tmp_path / "lr-1" / "best_train.safetensors")[part]
    before = next(value for name, value in models[0].before.items() if name.startswith(part))
    assert torch.equal(learned[1], before[1])
    assert not torch.equal(learned[0], before[0])


def test_validation_takes_the_same_noise_in_each_epoch(world, target, tmp_path, monkeypatch):
    """Where nothing is learned the loss stays."""
    monkeypatch.setattr(trainer.Trainer, "step", lambda *_: 0.0)
    finetuning.finetune(**arguments(world, target, "imagic", tmp_path / "lr-1"))
    found = pd.read_csv(history_file(tmp_path / "lr-1"))["validation_loss"]
    assert len(found) == 3
    assert found.nunique() == 1


@pytest.mark.parametrize("where", ["training", "validation"])
def test_losses_that_stay_without_number_end_the_run_with_infinite_losses_and_no_candidate(
    world, target, tmp_path, monkeypatch, where
):
    """In the second epoch, when there were candidates already."""
    steps, validations = iter([1.0] * 4 + [float("nan")] * 2), iter([1.0, math.inf])
    monkeypatch.setattr(finetuning, "PATIENCE", 2)
    monkeypatch.setattr(trainer.Trainer, "step", lambda *_: next(steps) if where == "training" else 0.0)
    monkeypatch.setattr(trainer.Trainer, "validation_loss", lambda *_: next(validations))
    finetuning.finetune(**arguments(world, target, "ft_conditioning", tmp_path / "lr-1"))
    assert sorted(path.name for path in (tmp_path / "lr-1").iterdir()) == ["candidates.csv"]
    history = pd.read_csv(history_file(tmp_path / "lr-1"))
    assert history["validation_loss"].tolist() == [1.0, float("inf")]
    assert history["train_loss"].iloc[1] == float("inf")
    assert list(pd.read_csv(tmp_path / "lr-1" / "candidates.csv")) == ["candidate", *history.columns]
    assert selection.rates([tmp_path / "lr-1"]) == {"lr-1": float("inf")}


def test_steps_in_a_row_are_counted_over_epochs_and_a_finite_one_ends_the_row(world, target, tmp_path, monkeypatch):
    """Three steps are an epoch: an epoch without a finite loss has none, and training goes on."""
    nan = float("nan")
    steps = iter([1.0, nan, nan, nan, nan, nan, 8.0, nan, nan])
    monkeypatch.setattr(finetuning, "PATIENCE", 6)
    monkeypatch.setattr(trainer.Trainer, "step", lambda *_: next(steps))
    monkeypatch.setattr(trainer.Trainer, "validation_loss", lambda *_: 1.0)
    finetuning.finetune(**arguments(world, target, "ft_conditioning", tmp_path / "lr-1"))
    losses = pd.read_csv(history_file(tmp_path / "lr-1"))["train_loss"].tolist()
    assert losses == [1.0 / 8, float("inf"), 1.0]  # of the images whose loss is finite


@pytest.mark.parametrize("method", ["imagic", "textual_inversion"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_overflows_changes_nothing(world, target, tmp_path, monkeypatch, method, where):
    """As in float16: one without a number in the middle of training, after which all is as if it had not been."""
    given = arguments(world, target, method, tmp_path / "lr-1")
    settings = [given[name] for name in ("inputs", "method", "settings")]
    training = trainer.Trainer(*settings, rate=1.0, seed=5)
    positions = np.arange(8)
    training.step(positions, 1, 0)
    before = {name: value.clone() for name, value in (training.model.state() | training.optimizer.tensors()).items()}
    original = trainer.losses

    def overflowing(*arguments):
        each = original(*arguments)
        if where == "loss":
            return each * float("inf")
        return _GradientOverflow.apply(each)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "losses", overflowing)
        assert training.step(positions, 1, 1) == float("inf")
    after = training.model.state() | training.optimizer.tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert math.isfinite(training.step(positions, 1, 1))


class _GradientOverflow(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        return values.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("inf")


def test_some_validation_images_may_overflow_but_not_many(world, target, tmp_path, monkeypatch):
    given = arguments(world, target, "ft_conditioning", tmp_path / "lr-1")
    training = trainer.Trainer(*[given[name] for name in ("inputs", "method", "settings")], rate=1.0, seed=5)
    plain, original, calls = training.validation_loss(), trainer.losses, []

    def overflowing(*arguments):
        calls.append(0)
        each = original(*arguments)
        return torch.cat([each[:1] * float("inf"), each[1:]]) if len(calls) == 1 else each

    monkeypatch.setattr(trainer, "losses", overflowing)
    assert training.validation_loss() == math.inf  # one of twelve
    calls.clear()
    monkeypatch.setattr(trainer, "TOLERATED", 0.1)
    rest = training.validation_loss()
    assert math.isfinite(rest)
    assert rest != plain
    assert rest == pytest.approx(plain, rel=0.5)


def test_where_memory_runs_out_the_results_are_those_of_fewer_images_at_a_time(
    world, target, runs, tmp_path, monkeypatch, capsys
):
    """A GPU whose memory suffices for three images, asked for eight: in training and in validation."""
    original, most = trainer.losses, []

    def limited(*arguments):
        images_at_once = len(arguments[2])
        if images_at_once > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        most.append(images_at_once)
        return original(*arguments)

    monkeypatch.setattr(trainer, "losses", limited)
    finetuning.finetune(**arguments(world, target, "pseudoword_dm", tmp_path / "lr-1", images_at_a_time=8))
    assert max(most) == 2
    assert capsys.readouterr().out.count("the GPU's memory does not suffice") == 2
    finetuning.finetune(**arguments(world, target, "pseudoword_dm", tmp_path / "lr-2", images_at_a_time=2))
    assert contents(tmp_path / "lr-1") == contents(tmp_path / "lr-2")


def test_the_next_batch_that_is_drawn_ahead_is_the_one_that_would_be_drawn(world, target, tmp_path):
    given = arguments(world, target, "unet_only", tmp_path / "lr-1")
    training = trainer.Trainer(*[given[name] for name in ("inputs", "method", "settings")], rate=1.0, seed=5)
    following = (np.arange(8, 16), 1, 1)
    training.step(np.arange(8), 1, 0, following)
    ahead, fresh = training._training_batch(*following), training._training_batch(*following)
    assert ahead is not fresh
    assert all(torch.equal(one, other) for one, other in zip(ahead, fresh, strict=True))


def test_frozen_weights_are_cast_and_trained_ones_begin_in_full_precision(world, target, tmp_path, monkeypatch):
    """As on a GPU: what is trained is computed by an encoder that is not yet cast."""
    plain = {}
    for precision in ("no", "bf16"):
        monkeypatch.setattr(trainer, "mixed_precision", lambda precision=precision: precision)
        for method in ("textual_inversion", "imagic"):
            given = arguments(world, target, method, tmp_path / "lr-1")
            training = trainer.Trainer(*[given[name] for name in ("inputs", "method", "settings")], rate=1.0, seed=5)
            begin = next(value for name, value in training.model.state().items() if not name.startswith("unet"))
            assert torch.equal(begin, plain.setdefault(method, begin.clone()))
            kinds = {name: {w.dtype for w in module.parameters()} for name, module in training.model.named_children()}
            frozen = torch.bfloat16 if precision == "bf16" else torch.float32
            assert frozen in kinds["text_encoder"]
            assert kinds["unet"] == {torch.float32 if "unet" in TRAINED[method] else frozen}
            assert math.isfinite(training.step(np.arange(8), 1, 0))


@pytest.mark.parametrize("change", ["precision", "card"])
def test_a_state_of_another_precision_or_card_is_not_gone_on_from(world, target, tmp_path, monkeypatch, capsys, change):
    """A training that is preempted on one GPU and begun again on another ends as if it had begun there."""
    monkeypatch.setattr(trainer, "mixed_precision", lambda: "bf16")

    def as_on_another(patch):
        if change == "precision":
            patch.setattr(trainer, "mixed_precision", lambda: "fp16")
        else:
            patch.setattr(trainer.Trainer, "hardware", lambda _: ["bf16", "NVIDIA A30"])

    given = arguments(world, target, "textual_inversion", tmp_path / "lr-1", max_epochs=1)
    original, done = trainer.losses, []

    def ended(*arguments):
        done.append(0)
        if len(done) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(trainer, "losses", ended)
        finetuning.finetune(**given)
    as_on_another(monkeypatch)
    finetuning.finetune(**given)
    assert "starting anew" in capsys.readouterr().out
    finetuning.finetune(**arguments(world, target, "textual_inversion", tmp_path / "lr-2", max_epochs=1))
    assert contents(tmp_path / "lr-1") == contents(tmp_path / "lr-2")
    assert candidates.load(tmp_path / "lr-1" / "best_train.safetensors")["pseudo_word"].dtype == torch.float16


def test_a_rate_that_is_far_too_high_diverges_for_real(world, target, tmp_path):
    finetuning.finetune(**arguments(world, target, "imagic", tmp_path / "lr-1", rate=1e38, max_epochs=5))
    assert pd.read_csv(history_file(tmp_path / "lr-1"))["validation_loss"].iloc[-1] == float("inf")


@pytest.mark.parametrize("mirrored", [False, True])
def test_half_of_the_images_are_mirrored_where_asked_for(world, target, tmp_path, monkeypatch, mirrored):
    stored, original, used = target.latents["train"], trainer.sample_posterior, []

    def sample_posterior(parameters, noise, *scaling):
        used.extend(parameters)
        return original(parameters, noise, *scaling)

    monkeypatch.setattr(trainer, "sample_posterior", sample_posterior)
    monkeypatch.setattr(trainer.Trainer, "validation_loss", lambda *_: 1.0)
    changes = {"horizontal_flip": mirrored, "max_epochs": 2}
    finetuning.finetune(**arguments(world, target, "ft_conditioning", tmp_path / "lr-1", **changes))
    kinds = {kind: sum(any(torch.equal(one, of) for of in stored[kind]) for one in used) for kind in stored}
    assert kinds["parameters"] + kinds["mirrored"] == len(used) == 40
    assert 10 < kinds["mirrored"] < 30 if mirrored else kinds["mirrored"] == 0


def test_latents_of_other_images_are_an_error(world, target, tmp_path):
    """Of as many, in another order: each image would be trained on another's."""
    table = target.tables["train"].iloc[::-1]
    images.write(tmp_path / "train.parquet", table)
    given = arguments(world, target, "imagic", tmp_path / "lr-1", inputs={"train": tmp_path / "train.parquet"})
    with pytest.raises(
        ValueError, match=r"train.safetensors holds latents of other images than the image table; remove it"
    ):
        finetuning.finetune(**given)
    assert list(tmp_path.iterdir()) == [tmp_path / "train.parquet"]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_each_setting_is_part_of_the_fingerprint(world, target, tmp_path):
    """Whatever the section holds: what is added to it later, too."""
    given = arguments(world, target, "imagic", tmp_path / "lr-1")
    settings, facts = given["settings"], (given["inputs"], given["method"])
    cpu = [1, "no", "cpu"]
    prints = {finetuning.fingerprint_of(*facts, settings, *rest, cpu) for rest in ((1.0, 5), (2.0, 5), (1.0, 6))}
    for key in Finetune.model_fields:
        other = settings.model_copy(update={key: "another"})
        prints.add(finetuning.fingerprint_of(*facts, other, 1.0, 5, cpu))
    assert len(prints) == 3 + len(Finetune.model_fields)


def test_text_encodings_are_computed_once(world):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(world.backbone)
    calls = []
    pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    encode = TextEncodings(pipeline.tokenizer, pipeline.text_encoder)
    first = encode(["a photo of three", "six", "a photo of three"])
    assert torch.equal(first[0], first[2])
    assert torch.equal(encode(["six"])[0], first[1])
    assert len(calls) == 1
    encode(["six", "another"])
    assert len(calls) == 2
