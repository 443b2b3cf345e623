"""The same bytes whatever the granularity and the cores, and after a kill at a random moment."""

import os
import random
import signal
import time

import pytest

from augbench import images

pytestmark = pytest.mark.slow


def generated(clone) -> dict[str, bytes]:
    """image_id -> encoded bytes of all generated and retrieved images of the small study."""
    results = clone.folder / "results" / "small"
    tables = sorted([*results.glob("images/*/*/*.parquet"), *results.glob("retrieval/*/images.parquet")])
    found = images.read(*tables)
    found = found.sort_values("image_id")
    found["path"] = [str(clone.folder / path) for path in found["path"]]
    return {row.image_id: images.load_bytes(row) for row in found.itertuples()}


def test_other_granularity_one_core_and_a_kill_give_the_same_bytes(built, clone):
    other = clone()
    path = other.folder / "tests/workflow/small.yaml"
    path.write_text(path.read_text().replace("classes_per_generation: 5", "classes_per_generation: 3"))
    with path.open("a") as config:
        config.write("      runs_per_classifier: 1\n      candidates_per_screening: 2\n      save_minutes: 0.02\n")

    process = other.start("results/report.html", "--cores", "1", start_new_session=True)
    time.sleep(random.uniform(20, 90))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, _ = other.snakemake("--unlock")
    assert code == 0
    code, output = other.snakemake("results/report.html", "--cores", "1")
    assert code == 0, output

    assert other.digests("tables/*.csv") == built.digests("tables/*.csv")
    assert generated(other) == generated(built)
    assert len(list((other.folder / "results/small/images/clip_prompts/base").glob("*.tar"))) == 4
