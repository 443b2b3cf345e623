"""What is passed to several processes arrives as it was sent."""

import json

import pandas as pd
import yaml

from augbench import images
from augbench.jobs import launching
from augbench.study.methods import Method
from augbench.study.parts import PARTS
from augbench.study.sections.base import Inputs
from augbench.study.sections.diffusion import Finetune


class Files(Inputs):
    train: str
    clusters: str | None = None


def test_sections_methods_and_tables_pass_through_json(tmp_path):
    with open("config/methods.yaml") as file:
        method = Method(**yaml.safe_load(file)["methods"]["pseudoword_dm"])
    job = {
        "inputs": Files.model_validate({"train": tmp_path / "train.parquet", "clusters": []}),
        "method": method,
        "settings": Finetune(learning_rates={"unet": 1e-6}, grid=[0.5, 1], threads=3),
        "table": images.table([{"image_id": "a", "class": "x", "path": "a.png", "cluster": 2}]),
        "rate": 0.5,
    }
    assert launching._threads(job) == 3
    sent = json.loads(json.dumps(launching._to_json(job, tmp_path)))
    arrived = launching._from_json(sent)
    pd.testing.assert_frame_equal(arrived.pop("table"), job.pop("table"))
    assert arrived == job
    assert arrived["method"].trained == [PARTS["pseudo_word"], PARTS["unet"]]
    assert arrived["inputs"].clusters is None
