"""What a study writes, against what the check of the disk says before it: classes of 30 training images, 512 pixels.

Pictures are random, with the spectrum of photographs, and so are latents; no model computes anything.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from retrieving import retrieve_into

from augbench import images
from augbench.core import files as core_files
from augbench.dataset import exclusion, splits
from augbench.dataset.class_table import class_table
from augbench.dataset.resampling import write_sets
from augbench.diffusion import latents, sampling
from augbench.diffusion.sampling_plan import Share
from augbench.jobs import checks
from augbench.jobs.job_costs import JobCosts
from augbench.jobs.study_files import StudyFiles
from augbench.retrieval import download
from augbench.study import classes, config

pytestmark = pytest.mark.slow

ROWS = yaml.safe_load(Path("config/methods.yaml").read_text())
# With two candidates rather than five, which takes less time.
TUNED = ROWS["methods"]["ft_conditioning"] | {"candidates": ["best_train", "epoch-1"]}
SIDE, IN_CLASS = 512, 60
KINDS = {"base": "generate", "screen": "generate_screened", "selected": "generate"}


class Pictures:
    """Random pictures whose amplitudes fall with the frequency as those of photographs: some, shifted round."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        x, y = np.fft.rfftfreq(SIDE)[None], np.fft.fftfreq(SIDE)[:, None]
        self.frequency = np.hypot(x, y)
        self.frequency[0, 0] = 1
        self.some = [self._picture() for _ in range(6)]

    def _plane(self, fall: float) -> np.ndarray:
        noise = np.fft.rfft2(self.rng.standard_normal((SIDE, SIDE)))
        plane = np.fft.irfft2(noise / self.frequency**fall, (SIDE, SIDE))
        return plane / plane.std()

    def _picture(self) -> np.ndarray:
        light = self._plane(1.6)
        planes = [128 + 55 * (0.95 * light + 0.3 * self._plane(1.9)) for _ in range(3)]
        return np.stack(planes, -1).clip(0, 255).astype(np.uint8)

    def draw(self):
        shift = self.rng.integers(SIDE, size=2)
        return Image.fromarray(np.roll(self.some[self.rng.integers(len(self.some))], shift, (0, 1)))

    def jpeg(self, width: int, height: int) -> bytes:
        tiled = np.tile(self.draw(), (2, 2, 1))[:height, :width]  # seamless
        buffer = io.BytesIO()
        Image.fromarray(tiled).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()


class Sampler:
    """In the place of a diffusion model."""

    pictures = Pictures(1)

    def __init__(self, *_):
        pass

    def use(self, candidate, name):
        return self

    def draw(self, rows, key):
        for row in rows:
            row |= {"seed": 1, "replaced": 0}
        return [self.pictures.draw() for _ in rows]


class Trusting:
    def unsafe(self, pictures):
        return [False] * len(pictures)


class Web:
    """A pool of which each class has neighbours of its own."""

    identity = ("web",)

    def neighbours(self, queries, counts, threshold, *, diversity=0.0, among=()):
        for query, count in zip(queries, counts, strict=True):
            ids = [1000 * int(query) + i for i in range(count)]
            table = pd.DataFrame({"id": ids, "similarity": 0.9, "url": [f"http://x/{i}.jpg" for i in ids]})
            table = table.assign(caption="a caption of some words", aesthetic=6.0, path=None)
            yield table.assign(**dict.fromkeys(("duplicate_of", "offset", "length"), pd.array([None] * count, "Int64")))


def fetch_list(urls, folder, *_):
    """As img2dataset writes downloads."""
    folder.mkdir(parents=True)
    rows = []
    with images.ShardWriter(folder / "0.tar") as writer:
        for i, url in enumerate(urls):
            data = Sampler.pictures.jpeg(800, 600)
            place = writer.add(f"{i:09d}", {"jpg": data, "json": {"url": url}}, image="jpg")
            rows.append((url, "fetched", "", str(folder / "0.tar"), *place, f"{i}-{url}"))
    table = pd.DataFrame(rows, columns=download.COLUMNS).astype({"offset": "Int64", "length": "Int64"})
    table.to_parquet(folder / "fetched.parquet")
    return table


# Most classes in the format that takes the least time; fewer than eight do not outweigh what any study writes in WebP.
@pytest.fixture(params=[("jpeg", 20), ("png", 4), ("webp", 8)], ids=lambda each: f"{each[0]}, {each[1]} classes")
def study(request, tmp_path, monkeypatch) -> StudyFiles:
    monkeypatch.chdir(tmp_path)
    extension, count = request.param
    configs = {"vae": {"latent_channels": 4, "block_out_channels": [8] * 4}, "text_encoder": {"hidden_size": 32}}
    for part, facts in configs.items():
        core_files.write_json(tmp_path / "model" / part / "config.json", facts)
    for key in range(count):
        (tmp_path / "data" / f"{key:02d}").mkdir(parents=True)
        for i in range(IN_CLASS):
            (tmp_path / "data" / f"{key:02d}" / f"{i}.jpg").write_bytes(Sampler.pictures.jpeg(500, 375))
    raw = {
        "methods": ["none", "more_real", "clip_prompts", "tuned", "retrieval"],
        "target": {"reader": "folder", "path": "data"},
        "dataset": {"train": 0.5, "validation": 0.1, "test": 0.2},
        "backbone": {"model": "model"},
        "clip": {"model": "ViT-B/32"},
        "pool": {"source": "service", "url": "http://x/y", "index": "i"},
        "generate": {"image_size": SIDE, "times": 1.5, "format": extension, "quality": 90},
        "classifier": {"model": "small_cnn", "image_size": 32},
    }
    rows = {"methods": ROWS["methods"] | {"tuned": TUNED}}
    return StudyFiles(config.parse(rows | {"studies": {"s": raw}}), "s")


def make_data_set(files: StudyFiles) -> None:
    study = files.study
    table = splits.split(study.target, study.dataset, seed=1)
    images.write(files.target("images.parquet"), table, extra=["split"])
    places = [files.split(split) for split in splits.SPLITS]
    exclusion.write_dataset(class_table(study.target), table, {}, files.classes, places)
    for split in ("train", "validation"):
        ids = images.read(files.split(split))["image_id"]
        latents.write(files.latents(split), ids, {"parameters": torch.randn(len(ids), 8, SIDE // 8, SIDE // 8)})


def generate(files: StudyFiles, method: str, purpose: str) -> None:
    study = files.study
    inputs = {"backbone": study.backbone.model, "classes": files.classes}
    if purpose == "screen":
        inputs["finetuned"] = files.finetunings(method)
    if purpose == "selected":
        inputs |= {"selection": files.selection(method), "chosen": files.chosen(method)}
        inputs["screened"] = files.screened(method, 0)
    share = Share(method, purpose, 0, 1, ratio=1, times=files.main_times(method))
    places = [files.shard(method, purpose, 0, extension) for extension in ("tar", "parquet")]
    inputs = sampling.GenerateInputs.model_validate(inputs)
    sampling.generate(inputs, share, files.methods[method], study.generate, *places, seed=1)


def fine_tune(files: StudyFiles, method: str) -> None:
    """Candidates without tensors, of which the first is chosen."""
    (folder,) = files.finetunings(method)
    names = files.methods[method].candidates
    table = pd.DataFrame({"epoch": [2, 1], "train_loss": 1.0, "validation_loss": 1.0})
    core_files.write_csv(f"{folder}.csv", table)
    core_files.write_csv(f"{folder}/candidates.csv", table.assign(candidate=names))
    for name in names:
        Path(folder, f"{name}.safetensors").touch()
    row = {"candidate": f"lr-1_{names[0]}", "file": f"lr-1/{names[0]}.safetensors"}
    core_files.write_json(files.selection(method), row)
    Path(files.chosen(method)).touch()


def retrieve(files: StudyFiles) -> None:
    study, keys = files.study, [row["class"] for row in classes.kept(files.classes)]
    wanted = pd.DataFrame({"class": keys, "query": keys, "count": IN_CLASS // 2})
    retrieve_into(Path(files.retrieval("retrieval", "x")).parent, wanted, Web(), Trusting(), study.retrieval)


def bytes_below(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def test_a_study_writes_what_the_check_of_the_disk_says(study, monkeypatch):
    monkeypatch.setattr(sampling, "sampler_of", Sampler)
    monkeypatch.setattr(sampling.candidates, "load", lambda file, classes: {})
    monkeypatch.setattr(download, "_fetch_list", fetch_list)
    needed = JobCosts(study)
    expected, before = {}, checks.disk_needed(needed) - checks.ROOM
    for rule, need in needed.jobs():
        expected[rule] = expected.get(rule, 0) + need.writes + need.drops
    make_data_set(study)
    retrieve(study)
    fine_tune(study, "tuned")
    for method, purpose in (("clip_prompts", "base"), ("tuned", "screen"), ("tuned", "selected")):
        generate(study, method, purpose)
    counts = {row["class"]: row["train"] for row in classes.kept(study.classes)}
    for method in ("clip_prompts", "tuned"):
        sources, sets = study.generated(method, "parquet"), study.added_sets(method)
        chosen = "lr-1_best_train" if study.is_trained(method) else None
        write_sets(sets, sources, counts, candidate=chosen, ratio=1, order="random", seed_key=(1,))
    written = {
        "encode_latents": bytes_below(f"{study.folder}/latents"),
        "retrieve": bytes_below(f"{study.folder}/retrieval"),
        "generate_screened": bytes_below(f"{study.folder}/images/tuned/screen"),
        "generate": sum(bytes_below(f"{study.folder}/images/{part}") for part in ("clip_prompts", "tuned/selected")),
    }
    for rule, size in written.items():
        print(f"{rule}: {size / 1e6:.0f} MB, expected {expected[rule] / 1e6:.0f}, {size / expected[rule]:.2f}")
    total = bytes_below(study.folder)
    print(f"{study.study.generate.format}: {total / 1e6:.0f} MB, expected {before / 1e6:.0f}, {total / before:.2f}")
    assert before * 0.8 < total < before * 1.2
    assert all(0.7 < size / expected[rule] < 1.3 for rule, size in written.items())
