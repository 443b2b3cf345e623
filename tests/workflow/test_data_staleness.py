"""Images that users add, remove or change re-run what reads them, and nothing else does."""

import os
import shutil

import pytest
import yaml
from PIL import Image

TARGETS = (
    "results/own/target/images.parquet",
    "results/own/audit/references/web.parquet",
    "results/own/pool/shards/0.tar",
)
STUDY = {
    "seed": 1,
    "methods": ["none"],
    "target": {"reader": "folder", "path": "photos"},
    "dataset": {"train": 0.5, "validation": 0.2, "test": 0.2},
    "audit": {"references": {"web": "others"}},
    "pool": {"source": "folder", "path": "pool"},
    "clip": {"model": "ViT-B/32"},
    "retrieval": {"min_aesthetic": None},
}


@pytest.fixture(scope="module")
def read(clone):
    """A clone in which everything that reads a user's images was done."""
    done = clone()
    for folder, count in (("photos/cat", 8), ("photos/dog", 8), ("others", 2), ("pool", 3)):
        (done.folder / folder).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(done.folder / folder / f"{number}.png")
    (done.folder / "own.yaml").write_text(yaml.safe_dump({"studies": {"own": STUDY}}))
    done.study = "own.yaml"
    code, output = done.snakemake("--cores", "2", *TARGETS)
    assert code == 0, output
    return done


def rerun(read) -> set[str]:
    return {rule for rule, _ in read.planned(*TARGETS)}


def later(file):
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime + 10))


def test_a_touched_folder_and_a_file_that_is_no_image_re_run_nothing(read):
    for folder in ("photos", "photos/cat", "others", "pool"):
        later(read.folder / folder)
    (read.folder / "photos" / "cat" / "notes.txt").write_text("no image")
    assert rerun(read) == set()


def test_an_image_of_the_target_that_is_older_than_any_result_splits_it_again(read):
    """Snakemake compares times; that each kind of change is noticed is seen in `unit/jobs/test_user_data.py`."""
    cat = read.folder / "photos" / "cat"
    shutil.copy2(cat / "0.png", cat / "new.png")
    os.utime(cat / "new.png", (10**9, 10**9))
    assert rerun(read) == {"split_target"}
    (cat / "new.png").unlink()


def test_each_folder_that_users_fill_re_runs_what_reads_it(read):
    later(read.folder / "photos" / "cat" / "0.png")
    later(read.folder / "others" / "0.png")
    (read.folder / "pool" / "1.txt").write_text("a caption")
    assert rerun(read) == {"split_target", "list_references", "pack_pool"}
