"""A whole study with two diffusion models of today's families, one of them fine-tuned, on folders of pictures."""

import os
import subprocess
import sys

import family_pipelines
import pandas as pd
import pytest
import yaml
from clones import ROOT
from random_pipelines import write_pictures
from safetensors.torch import load_file

from augbench import images

ROWS = {
    "prompt_xl": {"title": "Prompt", "conditioning": "simple_prompt", "backbone": "sdxl"},
    "lora_flux": {"title": "LoRA", "conditioning": "simple_prompt", "trained": ["lora"], "backbone": "flux"},
}
ADAPTERS = ["lora", "text_encoder_lora"]
ROWS["dream_xl"] = ROWS["prompt_xl"] | {"title": "DataDream", "trained": ADAPTERS, "per_class": True}
ROWS = {name: row | {"family": "mine", "start": "noise"} for name, row in ROWS.items()}
for name in ("lora_flux", "dream_xl"):
    ROWS[name]["candidates"] = ["epoch-1", "epoch-2"]
STUDY = {
    "methods": ["none", "prompt_xl", "lora_flux", "dream_xl"],
    "target": {"reader": "folder", "path": "data"},
    "dataset": {"train": 0.5, "validation": 0.25, "test": 0.25},
    "runs": 1,
    "backbones": {"sdxl": {"model": "models/sdxl"}, "flux": {"model": "models/flux"}},
    "safety": {"model": "none"},
    "generate": {"image_size": 32, "steps": 2, "times": 1},
    "finetune": {
        "grid": [1],
        "batch_size": 4,
        "max_epochs": 2,
        "lora": {"rank": 4},
        "text_encoder_lora": {"rank": 4},
    },
    "classifier": {"model": "small_cnn", "image_size": 32, "batch_size": 8, "max_epochs": 2, "learning_rate": 0.05},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A target of two classes, and two tiny models, one of which names its licence."""
    folder = tmp_path_factory.mktemp("backbones")
    write_pictures(folder / "data" / "three", 32, 12)
    write_pictures(folder / "data" / "six", 32, 13)
    for name in ("sdxl", "flux"):
        family_pipelines.write(folder / "models" / name, name)
    (folder / "models" / "sdxl" / "README.md").write_text("---\nlicense: openrail++\n---\n")
    return folder


def run(folder, *arguments, name="birds", **sections) -> str:
    config = {"methods": ROWS, "studies": {name: STUDY | sections}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["--configfile", f"{name}.yaml", *(["--", *arguments] if arguments else [])]
    done = subprocess.run(
        command, cwd=folder, env=os.environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1500
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_a_study_compares_two_families_and_its_images_do_not_depend_on_the_jobs(folder):
    run(folder)
    results = folder / "results" / "birds"
    page = (results / "report.html").read_text()
    assert "models/sdxl (licence: openrail++)" in page
    assert "models/flux (licence: presumed flux-1-dev-non-commercial-license)" in page
    methods = ("prompt_xl", "lora_flux", "dream_xl")
    for method in methods:
        assert (results / "classifier" / method / "x1" / "run-1" / "metrics.json").is_file()
    jobs = {"classes_per_generation": 1}
    wanted = [f"results/cut/augmentation/{method}/x1/split-1.parquet" for method in methods]
    run(folder, *wanted, name="cut", jobs=jobs)

    def pictures(study, method) -> dict[str, bytes]:
        tables = sorted((folder / "results" / study / "images" / method).rglob("*.parquet"))
        rows = pd.concat([images.read(table) for table in tables])
        rows["path"] = [str(folder / path) for path in rows["path"]]
        return {row.image_id: images.load_bytes(row) for row in rows.itertuples()}

    for method in methods:
        whole, cut = pictures("birds", method), pictures("cut", method)
        assert whole and whole == cut
    chosen = folder / "results" / "birds" / "finetune" / "lora_flux" / "chosen.safetensors"
    assert chosen.is_file() and chosen.stat().st_size < 1e6
    own = load_file(folder / "results" / "birds" / "finetune" / "dream_xl" / "chosen.safetensors")
    assert {name.partition("/")[0] for name in own} == {"three", "six"}
