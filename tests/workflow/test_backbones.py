"""A whole study with tiny diffusion models of six families, prompted and, where they can be, fine-tuned.

Each of its jobs that draws or trains starts a process which imports diffusers: seven seconds for pictures of a tenth of
one. So what is no family's own is done once: two unions hold the images of all, and classifiers are trained on those.
"""

import os
import subprocess
import sys

import family_pipelines
import pandas as pd
import pytest
import random_pipelines
import yaml
from clones import ROOT
from safetensors.torch import load_file

from augbench import images

MINE = {"family": "mine", "start": "noise", "conditioning": "simple_prompt"}
FAMILIES = ["sd", *family_pipelines.PIPELINES]
ROWS = {f"prompt_{name}": MINE | {"title": f"Prompt, {name}", "backbone": name} for name in FAMILIES}
LORA = {"trained": ["lora"], "candidates": ["epoch-1"]}
ROWS |= {f"lora_{name}": MINE | LORA | {"title": f"LoRA, {name}", "backbone": name} for name in ("sd3", "flux")}
DREAM = {"trained": ["lora", "text_encoder_lora"], "per_class": True, "candidates": ["epoch-1", "epoch-2"]}
ROWS["dream_sdxl"] = MINE | DREAM | {"title": "DataDream", "backbone": "sdxl"}
MEMBERS = {
    "prompted": [name for name, row in ROWS.items() if "trained" not in row],
    "adapted": [name for name, row in ROWS.items() if "trained" in row],
}


def union(members) -> dict[str, float]:
    """Equal shares but for the first one, so that they sum to 1."""
    share = round(1 / len(members), 2)
    return dict.fromkeys(members, share) | {members[0]: round(1 - share * (len(members) - 1), 2)}


ROWS |= {
    name: {"title": name.title(), "family": "union", "start": "methods", "of": union(members)}
    for name, members in MEMBERS.items()
}
STUDY = {
    "methods": ["none", *MEMBERS],
    "target": {"reader": "folder", "path": "data"},
    "dataset": {"train": 0.5, "validation": 0.25, "test": 0.25},
    "runs": 1,
    "backbones": {name: {"model": f"models/{name}"} for name in FAMILIES},
    "safety": {"model": "none"},
    "generate": {"image_size": 32, "steps": 2, "times": 1, "batch_size": 4},
    "finetune": {
        "grid": [1],
        "batch_size": 4,
        "max_epochs": 2,
        "lora": {"rank": 4},
        "text_encoder_lora": {"rank": 4},
    },
    "classifier": {"model": "small_cnn", "image_size": 32, "batch_size": 8, "max_epochs": 2, "learning_rate": 0.05},
}
ORIGINS = {  # as the report names the models, and their licences
    "sd": "presumed creativeml-openrail-m",
    "sdxl": "openrail++",
    "sd3": "presumed stabilityai-ai-community",
    "flux": "presumed flux-1-dev-non-commercial-license",
    "sana": None,
    "pixart": "presumed openrail++",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A target of two classes, and the tiny models, one of which names its licence."""
    folder = tmp_path_factory.mktemp("backbones")
    random_pipelines.write_pictures(folder / "data" / "three", 32, 12)
    random_pipelines.write_pictures(folder / "data" / "six", 32, 13)
    random_pipelines.write(folder / "models" / "sd", "tiny")
    for name in family_pipelines.PIPELINES:
        family_pipelines.write(folder / "models" / name, name)
    (folder / "models" / "sdxl" / "README.md").write_text("---\nlicense: openrail++\n---\n")
    return folder


def run(folder, *arguments, **sections) -> str:
    config = {"methods": ROWS, "studies": {"birds": STUDY | sections}}
    (folder / "birds.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    command += ["--configfile", "birds.yaml", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1500
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_a_study_of_all_families_whose_images_do_not_depend_on_the_jobs(folder):
    run(folder)
    results = folder / "results" / "birds"

    def pictures(place, shard) -> dict[str, bytes]:
        rows = images.read(results / "images" / place / f"shard-{shard}.parquet")
        rows["path"] = [str(folder / path) for path in rows["path"]]
        return {row.image_id: images.load_bytes(row) for row in rows.itertuples()}

    page = (results / "report.html").read_text()
    for name, licence in ORIGINS.items():
        assert f"models/{name} (licence: {licence})" in page if licence else f"models/{name}" in page
    for name, members in MEMBERS.items():
        assert (results / "classifier" / name / "x1" / "run-1" / "metrics.json").is_file()
        added = pd.read_parquet(results / "augmentation" / name / "x1" / "split-1.parquet")
        assert set(added["method"]) == set(members)
    for name in MEMBERS["adapted"]:
        chosen = results / "finetune" / name / "chosen.safetensors"
        assert chosen.stat().st_size < 1e6
        own = {key.partition("/")[0] for key in load_file(chosen)}
        assert own == {"three", "six"} if name == "dream_sdxl" else own and not own & {"three", "six"}

    # Another granularity: the second of two jobs draws what lay at the end of a larger one.
    cut = ["prompt_sd/base", "prompt_sana/base", "lora_sd3/screen"]  # both samplers, and adapters
    wanted = [f"results/birds/images/{place}/shard-1.parquet" for place in cut]
    options = ("--notemp", "--rerun-triggers", "mtime", "--")
    run(folder, *options, *wanted, jobs={"classes_per_generation": 1})
    for place in cut:
        whole, part = pictures(place.replace("screen", "selected"), 0), pictures(place, 1)
        assert 0 < len(part) < len(whole) and part.items() <= whole.items()
