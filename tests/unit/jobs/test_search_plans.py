"""The search plans of docs/pools.md, each on a made copy of the pool's layout."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from augbench.jobs import checks
from augbench.jobs.study_files import StudyFiles
from augbench.retrieval import captions
from augbench.study import config

ROOT = Path(__file__).parents[3]
PLANS = re.findall(r"\n\*\*([^*]+)\.\*\*(?:(?!\n\*\*).)*?```yaml\n(.*?)```", (ROOT / "docs/pools.md").read_text(), re.S)
ROWS, WIDE = 20, 768


def datacomp(folder):
    """As listed in DataComp's paper, with the columns that its files have."""
    folder.mkdir(parents=True)
    for part in range(2):
        table = pd.DataFrame({"uid": [f"{part}{i:031x}" for i in range(ROWS)]})
        table = table.assign(url="http://x.org/1.jpg", text="a photo of a robin", original_width=10, original_height=9)
        table = table.assign(
            clip_b32_similarity_score=0.3, face_bboxes=[[[0.1, 0.1, 0.2, 0.2]]] * ROWS, sha256="0" * 64
        )
        table.to_parquet(folder / f"{part:032x}.parquet", index=False)
        arrays = {name: np.ones((ROWS, 512 if "b32" in name else WIDE), np.float16) for name in ("b32_img", "b32_txt")}
        arrays |= {name: np.ones((ROWS, WIDE), np.float16) for name in ("l14_img", "l14_txt")}
        np.savez(folder / f"{part:032x}.npz", **arrays)


def pd12m(folder):
    folder.mkdir(parents=True)
    for part in range(2):
        table = pd.DataFrame({"id": [f"{part}-{i}" for i in range(ROWS)], "url": "https://x.org/1.jpg"})
        table = table.assign(caption="A robin on a branch.", width=9, height=9, mime_type="image/jpeg", hash="0" * 32)
        table = table.assign(license="https://creativecommons.org/publicdomain/zero/1.0/")
        table.to_parquet(folder / f"pd12m.{part:02}.parquet", index=False)
        np.save(folder / f"pd12m.{part:02}.npy", np.ones((ROWS, WIDE), np.float32))


def cc12m(file):
    lines = 'http://x.org/1.jpg\ta "robin\nhttp://x.org/2.jpg\ta wren'
    Path("part.tsv").write_text(lines)
    pd.read_csv("part.tsv", sep="\t", names=["url", "caption"], quoting=3).to_parquet(file)


def photos(folder):
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "1.jpg")
    (folder / "1.txt").write_text("a robin")


MADE = {"DataComp small": datacomp, "PD12M": pd12m, "CC12M": cc12m, "Your own folder": photos}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in ("robin", "wren"):
        (tmp_path / "data/birds" / key).mkdir(parents=True)
        for i in range(60):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / "data/birds" / key / f"{i}.png")


def test_there_is_a_plan_for_each():
    assert [name for name, _ in PLANS] == list(MADE)


@pytest.mark.parametrize(("name", "text"), PLANS, ids=list(MADE))
def test_a_plan_is_accepted_on_the_layout_that_it_is_for(elsewhere, tmp_path, name, text):
    methods = yaml.safe_load((ROOT / "config/methods.yaml").read_text())
    plan = config.parse(methods | yaml.safe_load(text))
    pool = plan.studies["birds"].pool
    MADE[name](Path(pool.path))
    checks.check_world(plan, tmp_path / "results")
    checks.remarks(plan)
    if StudyFiles(plan, "birds").index == [pool.path]:
        captions.build(pool, pool.path, tmp_path / "captions.sqlite")
        assert len(captions.Captions(tmp_path / "captions.sqlite").rows(["robin"])) == 2 * ROWS
