"""The same bytes whatever the granularity and the cores, and after a kill at a random moment."""

import os
import random
import signal
import time

import pytest

from augbench import images

pytestmark = pytest.mark.slow

METHODS = (
    "boomerang",
    "pseudoword_dm",
    "retrieval",
)  # starting from images, noise and the pool; all, on one core, take twice as long


def generated(clone) -> dict[str, bytes]:
    """image_id -> encoded bytes of all generated and retrieved images of the methods."""
    results = clone.folder / "results" / "small"
    patterns = [*(f"images/{method}/*/*.parquet" for method in METHODS), "retrieval/retrieval/images.parquet"]
    tables = sorted(path for pattern in patterns for path in results.glob(pattern))
    found = images.read(*tables).sort_values("image_id")
    found["path"] = [str(clone.folder / path) for path in found["path"]]
    return {row.image_id: images.load_bytes(row) for row in found.itertuples()}


def test_other_granularity_one_core_and_a_kill_give_the_same_bytes(built, clone):
    other = clone()
    path = other.folder / "tests/workflow/small.yaml"
    path.write_text(path.read_text().replace("classes_per_generation: 5", "classes_per_generation: 3"))
    with path.open("a") as config:
        config.write("      runs_per_classifier: 1\n      candidates_per_screening: 2\n      save_minutes: 0.02\n")
    numbers = [f"summary/{method}.json" for method in METHODS]
    arguments = [*(f"results/small/{name}" for name in numbers), "--cores", "1"]

    process = other.start(*arguments, start_new_session=True)
    time.sleep(random.uniform(20, 90))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, _ = other.snakemake("--unlock")
    assert code == 0
    code, output = other.snakemake(*arguments)
    assert code == 0, output

    digests = other.digests(*numbers, "classifier/*/*/*/*.parquet")
    assert len(digests) == 3 + 3 * 2
    assert digests.items() <= built.digests(*numbers, "classifier/*/*/*/*.parquet").items()
    assert generated(other) == generated(built)
    assert len(list((other.folder / "results/small/images/pseudoword_dm/selected").glob("*.tar"))) == 4
