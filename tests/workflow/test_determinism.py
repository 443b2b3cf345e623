"""The same bytes whatever the granularity and the cores, and after a kill in the middle of a fine-tuning."""

import os
import shutil
import signal
from pathlib import Path

from kills import wait_for

from augbench import images

METHODS = ("boomerang", "cluster_dm", "retrieval")  # starting from images, noise and the pool
SHARED = ("digits", "clip", "vae", "safety", "backbone", "pool", "latents")  # what is not cut into jobs otherwise
FINER = """
      runs_per_classifier: 1
      candidates_per_screening: 1
      keep_candidates: false
      save_minutes: 1.0e-9
"""
PREDICTIONS = "classifier/*/*/*/predictions.parquet"


def added(clone) -> dict[str, bytes]:
    """image_id -> encoded bytes of all generated and retrieved images of the methods."""
    results = clone.folder / "results" / "small"
    patterns = [*(f"images/{method}/*/*.parquet" for method in METHODS), "retrieval/retrieval/images.parquet"]
    tables = sorted(path for pattern in patterns for path in results.glob(pattern))
    found = images.read(*tables).sort_values("image_id")
    found["path"] = [str(clone.folder / path) for path in found["path"]]
    return {row.image_id: images.load_bytes(row) for row in found.itertuples()}


def drawn(clone, name) -> list[str]:
    """The images that a run is trained on beside the target's, in their order."""
    return images.read(clone.folder / "results" / "small" / name)["image_id"].to_list()


def test_other_granularity_one_core_and_a_kill_give_the_same_bytes(built, clone):
    other = clone()
    results = other.folder / "results" / "small"
    for name in SHARED:
        shutil.copytree(built.folder / "results" / "small" / name, results / name)
    config = other.folder / other.study
    text = config.read_text().replace("classes_per_generation: 10", "classes_per_generation: 6")
    config.write_text(text.rstrip() + FINER)
    runs = [f"classifier/retrieval/x1/run-{k}/predictions.parquet" for k in (1, 2)]
    sets = [f"augmentation/{method}/x1/split-{k}.parquet" for method in METHODS for k in (1, 2)]
    arguments = [*(f"results/small/{name}" for name in (*runs, *sets)), "--cores", "1"]

    process = other.start(*arguments, start_new_session=True, stdout=None)
    state = results / "finetune/cluster_dm/.lr-1.partial/state.safetensors"
    wait_for(state.exists, process, 600)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    candidates = state.parent.with_name("lr-1")
    assert not candidates.exists()
    code, _ = other.snakemake("--unlock")
    assert code == 0
    code, output = other.snakemake(*arguments)
    assert code == 0, output
    assert "going on in epoch" in Path(results / "logs/finetune/cluster_dm-lr-1.log").read_text()

    digests = other.digests(PREDICTIONS)
    assert sorted(digests) == sorted(runs)
    assert digests.items() <= built.digests(PREDICTIONS).items()
    assert added(other) == added(built)
    assert [drawn(other, name) for name in sets] == [drawn(built, name) for name in sets]
    assert len(list((results / "images/cluster_dm/selected").glob("*.tar"))) == 2
    assert not candidates.exists() and (built.folder / candidates.relative_to(other.folder)).exists()
    assert other.digests("finetune/cluster_dm/chosen.*") == built.digests("finetune/cluster_dm/chosen.*") != {}
