"""Many studies, and many jobs of one study."""

import os
import re
import signal
import subprocess

import numpy as np
import pytest
import yaml
from PIL import Image
from slurm_cluster import wait_for

from augbench import images
from augbench.dataset import splits
from augbench.study.config import Dataset, Target

pytestmark = pytest.mark.slow


def test_three_studies_one_after_another(remote):
    """As a user's loop over configuration files submits them; what comes out is what comes out without a cluster."""
    for seed, name in enumerate(("first", "second", "third")):
        study = {"seed": seed, "methods": ["none"], "target": {"reader": "digits"}}
        (remote.folder / f"{name}.yaml").write_text(yaml.safe_dump({"studies": {name: study}}))
        remote.submit("--configfile", f"{name}.yaml", "--", f"results/{name}/dataset/train.parquet")
    for seed, name in enumerate(("first", "second", "third")):
        found = images.read(remote.folder / "results" / name / "dataset" / "train.parquet")
        given = Target(reader="digits", path=str(remote.folder / f"results/{name}/digits/target"))
        wanted = splits.split(given, Dataset(), seed).query("split == 'train'")
        assert list(found["image_id"]) == list(wanted["image_id"])


CLASSES = 5000


def test_five_thousand_jobs_are_submitted_in_arrays(remote, cluster):
    """One generation job for each of 5,000 classes. They are let wait, so that all are in the queue at once."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(remote.folder / "dot.png")
    for number in range(CLASSES):
        folder = remote.folder / "many" / f"class{number:04d}"
        folder.mkdir(parents=True)
        for i in range(4):
            os.link(remote.folder / "dot.png", folder / f"{i}.png")
    study = yaml.safe_load((remote.folder / remote.study).read_text())["studies"]["small"]
    study = {name: study[name] for name in ("seed", "runs", "generate", "classifier")} | {
        "methods": ["simple_prompt"],
        "target": {"reader": "folder", "path": "many"},
        "dataset": {"train": 0.5, "validation": 0.25, "test": 0.25},
        "backbone": {"model": "results/small/backbone"},
        "jobs": {"classes_per_generation": 1},
    }
    study["generate"] = study["generate"] | {"batch_size": 6, "times": 3}
    (remote.folder / "many.yaml").write_text(yaml.safe_dump({"studies": {"many": study}}))
    limit = yaml.safe_load((remote.folder / "slurm/config.yaml").read_text())["slurm-array-limit"]
    shards = remote.folder / "results/many/images/simple_prompt/base"
    target = "results/many/augmentation/simple_prompt/x1/split-1.parquet"
    _, planned = remote.snakemake("-n", "--configfile", "many.yaml", "--", target)
    assert re.search(rf"^generate +{CLASSES}$", planned, re.MULTILINE)

    subprocess.run(["scontrol", "update", "nodename=t4", "state=drain", "reason=test"], check=True)
    with open(remote.folder / "many.log", "w") as log:  # what it prints would fill a pipe that nobody reads
        process = remote.submitted("--jobs", "6000", "--configfile", "many.yaml", "--", target, stdout=log)

    def all_queued():
        assert process.poll() is None, (remote.folder / "many.log").read_text()[-6000:]
        return len(jobs := queued("-r")) == CLASSES and jobs

    try:
        waiting = wait_for(all_queued, 600, "5,000 jobs in the queue")
        calls = {job.split("_")[0] for job in waiting}
        print(f"\n{len(waiting)} jobs in {len(calls)} calls of sbatch, {limit} at a time")
        assert len(calls) == -(-CLASSES // limit)
        # Not the first of its array: that has its command from elsewhere.
        subprocess.run(["scontrol", "update", "nodename=t4", "state=resume"], check=True)
        wait_for(lambda: len(list(shards.glob("*.parquet"))) >= 2, 300, "shards")
    finally:
        process.send_signal(signal.SIGINT)  # Ctrl-C: everything is cancelled
        process.communicate(timeout=300)
    wait_for(lambda: not queued(), 120, "empty queue")


def queued(*options):
    command = ["squeue", "-h", *options, "-p", "t4", "-o", "%i"]
    return subprocess.check_output(command, text=True, timeout=60).split()
