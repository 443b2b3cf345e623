"""The paper's studies as Snakemake plans them: every job, in bounded memory, for as many classes as there are."""

import csv
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from augbench.core import package_data

pytestmark = pytest.mark.slow

CONFIG = "config/paper.yaml"
PER_CLASS = 10  # images of a class on disk, enough for its splits: a plan looks at few, so more would only take longer
SCREENED = 6 * 5 + 8, 5, 5  # candidates of each study's fine-tuned methods; eight are Imagic's


def link(source: Path, folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        os.link(source, folder / f"{i}.JPEG")


@pytest.fixture(scope="module")
def planner(clone):
    """A clone with data where the configuration says that they lie."""
    fresh = clone()
    data = fresh.folder / "data"
    data.mkdir()
    Image.new("RGB", (8, 8)).save(data / "dot.jpg")
    with open(package_data.bundled("imagenet_synsets.csv"), newline="") as handle:
        wnids = [row["class"] for row in csv.DictReader(handle)]
    assert len(wnids) == 1000
    for wnid in wnids:
        link(data / "dot.jpg", data / "ILSVRC2012" / "train" / wnid, PER_CLASS)
        link(data / "dot.jpg", data / "ILSVRC2012" / "val" / wnid, 1)
    for number in range(1, 258):
        name = "clutter" if number == 257 else f"thing-{number}"
        link(data / "dot.jpg", data / "256_ObjectCategories" / f"{number:03d}.{name}", PER_CLASS)
    (data / "laion5B-index").mkdir()
    # The head of an index of one vector, as faiss writes it, and its row of metadata.
    (data / "laion5B-index" / "image.index").write_bytes(struct.pack("<4siq", b"IxFI", 768, 1))
    (data / "laion5B-index" / "metadata").mkdir()
    pd.DataFrame({"url": ["http://example.org/1.jpg"]}).to_parquet(data / "laion5B-index" / "metadata" / "0.parquet")
    (data / "sac+logos+ava1-l14-linearMSE.pth").touch()
    return fresh


PROFILED = """
import cProfile, pstats, sys
from snakemake.cli import main
profile = cProfile.Profile()
try:
    profile.runcall(main, sys.argv[1:])
except SystemExit as end:
    code = end.code
print("calls", pstats.Stats(profile).total_calls)
sys.exit(code)
"""
MEASURED = """
import resource, sys
from snakemake.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def plan(planner, config: str, program: str = MEASURED) -> dict[str, int]:
    """Jobs per rule of a plan, and what the program prints beside: the plan's ``peak`` in KiB, or the ``calls`` of
    functions that it took, which depend on nothing else on the machine, but take longer to count."""
    arguments = ["-n", "--quiet", "rules", "--configfile", config, "--", "results/report.html"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=planner.folder,
        env=planner.environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout
    jobs = {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)}
    print(jobs)
    return jobs


def test_every_job_of_the_paper_is_planned(planner):
    jobs = plan(planner, CONFIG)
    assert 1024 * jobs["peak"] < 2e9
    # The 13 rows of Table 1 and two further k of section 4.4, two of them at 6 further ratios; and twice four rows.
    assert sum(n for name, n in jobs.items() if name.startswith("classify")) == 5 * (15 + 2 * 6 + 4 + 4)
    assert jobs["resample"] == 14 + 2 * 6 + 3 + 3
    assert jobs["summary"] == 15 + 4 + 4
    assert jobs["audit"] == 14 + 3 + 3
    # Fine-tuned methods generate twice: to compare candidates, then the rest of the chosen one's images. What further
    # ratios want comes on top.
    assert jobs["retrieve_further"] == 1
    assert jobs["generate"] == (5 + 7 + 1) * 100 + (1 + 1) * 1000 + (1 + 1) * 26
    assert jobs["generate_screened"] == 7 * 100 + 1000 + 26
    assert jobs["finetune"] == 7 * 5 + 1 + 5  # learning rates; one for full ImageNet
    assert jobs["screen"] == sum(SCREENED)
    assert jobs["select"] == 7 + 1 + 1
    once = ("split_target", "dataset", "fetch_backbone", "retrieve", "encode_latents", "tables", "judge", "domain_gap")
    assert {name: jobs[name] for name in once} == dict.fromkeys(once, 3)
    assert (jobs["cluster"], jobs["study_page"], jobs["report_page"]) == (1, 3, 1)
    assert (jobs["review"], jobs["hash_added"]) == (20, 20)
    assert not {"train_clip", "train_unet", "digits_web", "embed_pool"} & jobs.keys()


def test_the_work_of_a_plan_grows_with_the_shards_and_no_faster(planner):
    """Three granularities of generation; what a plan costs beside its shards is the same for all."""
    measured = {}
    for classes in (250, 100, 50):
        raw = yaml.safe_load((planner.folder / CONFIG).read_text())
        raw["studies"] = {"imagenet10": raw["studies"]["imagenet10"]}
        raw["studies"]["imagenet10"]["jobs"]["classes_per_generation"] = classes
        (planner.folder / "mine.yaml").write_text(yaml.safe_dump(raw))
        jobs = plan(planner, "mine.yaml", PROFILED)
        shards = jobs["generate"] + jobs["generate_screened"]
        assert shards == (5 + 2 * 7 + 1) * 1000 // classes
        measured[shards] = jobs["calls"]
    few, some, many = sorted(measured)
    first = (measured[some] - measured[few]) / (some - few)
    second = (measured[many] - measured[some]) / (many - some)
    print(f"{first:.0f} and {second:.0f} calls per shard")
    assert second < 1.5 * first  # quadratic growth would make it more than twice the first
