"""Methods whose images are made elsewhere are rows like all others, in studies without a diffusion model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from clones import PLANNER, ROOT
from PIL import Image

from augbench import images

KEYS = ("ant", "bee", "cow")
PER_CLASS = 12
UNWANTED = ("diffusers", "clip_retrieval", "open_clip")
# A process that imports what such a study has no use for fails.
GUARD = f"""
import sys

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {UNWANTED}:
            raise ImportError(f"{{name}} is not wanted here")

sys.meta_path.insert(0, Guard())
"""
FORMS = {"again": "huggingface", "folders": "folder", "shards": "webdataset"}
SHARES = {"folders": 0.25, "noise": 0.25, "shards": 0.5}  # in the order in which YAML is written here
SECTIONS = {
    "target": {"reader": "folder", "path": "data"},
    "dataset": {"train": 0.5, "validation": 0.25, "test": 0.25},
    "runs": 2,
    "classifier": {"model": "small_cnn", "image_size": 16, "batch_size": 8, "max_epochs": 2, "learning_rate": 0.05},
}


def noise(path: Path, random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).save(path)


def run(folder: Path, config: dict, *arguments: str, program=("-m", "snakemake")) -> tuple[int, str]:
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, *program, "--snakefile", str(ROOT / "Snakefile"), "--configfile", "mine.yaml"]
    paths = os.pathsep.join([str(folder / "guard"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*command, "--cores", "2", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1200,
    )
    return done.returncode, done.stdout


def method(title: str) -> dict:
    return {"title": title, "family": "external", "start": "folder"}


def configuration() -> dict:
    """Study ``one`` exports what a script made, study ``two`` adds that, noise, a list with sources, and a union; the
    other exports are here for the union's sake alone."""
    titles = {"noise": "Noise", "sourced": "With sources", "again": "Exported"}
    one = {"methods": ["none", "affine"], "added": {"affine": {"script": "examples/affine.py"}}}
    added = {"noise": {"path": "noise", "allow_fewer": True}, "sourced": "sourced/list.csv"}
    added |= {name: f"results/one/export/affine/{form}" for name, form in FORMS.items()}
    two = {"methods": ["none", *titles, "union"], "added": added, "scaling": {"methods": ["noise"], "ratios": [0.5]}}
    union = {"title": "A union", "family": "union", "start": "methods", "of": SHARES}
    return {
        "methods": {name: method(title) for name, title in (FORMS | titles).items()} | {"union": union},
        "studies": {"one": one | SECTIONS, "two": two | SECTIONS},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a target and two sets of images, and what study ``one`` exports."""
    folder, random = tmp_path_factory.mktemp("external"), np.random.default_rng(0)
    (folder / "guard").mkdir()
    (folder / "guard" / "sitecustomize.py").write_text(GUARD)
    for key in KEYS:
        for i in range(PER_CLASS):
            noise(folder / "data" / key / f"{key}{i}.png", random)
            noise(folder / "noise" / key / f"{i}.png", random)
            noise(folder / "sourced" / f"{key}-{i}.png", random)
    for i in range(PER_CLASS):
        if i > 3:
            (folder / "noise" / "cow" / f"{i}.png").unlink()
    without = configuration()
    del without["studies"]["two"]
    exports = [f"results/one/export/affine/{form}" for form in FORMS.values()]
    code, output = run(folder, without, "results/one/export/none/folder", *exports)
    assert code == 0, output
    train = images.read(folder / "results/one/dataset/train.parquet")
    sources = {key: Path(rows["path"].iloc[0]).name for key, rows in train.groupby("class")}
    lines = [f"{key}-{i}.png,{key},{sources[key]},SDXL,CC0" for key in KEYS for i in range(PER_CLASS)]
    (folder / "sourced" / "list.csv").write_text("\n".join(["path,class,source,model,license", *lines]) + "\n")
    return folder


@pytest.fixture(scope="module")
def built(folder):
    targets = ["results/two/report.html", "results/two/export/again/webdataset", "results/two/export/union/huggingface"]
    code, output = run(folder, configuration(), *targets, program=("-c", PLANNER))
    assert code == 0, output
    (folder / "output.txt").write_text(output)
    return folder / "results" / "two"


@pytest.mark.middle
def test_the_training_images_are_exported_for_any_tool(folder):
    exported = folder / "results/one/export/none/folder/train"
    counts = {key: len(list((exported / key).iterdir())) for key in KEYS}
    assert counts == images.read(folder / "results/one/dataset/train.parquet")["class"].value_counts().to_dict()


@pytest.mark.slow
def test_each_set_is_a_row_of_all_that_there_is(built):
    table = pd.read_csv(built / "tables/table1.csv").set_index("method")
    assert table["ratio"].to_dict() == {"none": 0.0, "noise": 0.8889, "sourced": 1.0, "again": 1.0, "union": 1.0}
    scaling = pd.read_csv(built / "tables/scaling.csv")
    assert scaling[scaling["method"] == "noise"].set_index("ratio")["added"].to_dict() == {1.0: 16, 0.5: 9}
    for name in ("noise", "sourced", "again", "union"):
        assert json.loads((built / "audit" / name / "summary.json").read_text())["added"] > 0
        assert name in set(pd.read_csv(built / "tables/per_class.csv")["method"])
        assert name in set(pd.read_csv(built / "tables/domain_gap.csv")["method"])
    improved = set(pd.read_csv(built / "figures/figure5a.csv")["method"])
    assert len(improved) == 2 and "union" in improved and improved - {"union"} < {"noise", "sourced", "again"}
    gallery = pd.read_csv(built / "figures/figure4.csv")
    assert {"Noise", "With sources", "Exported", "A union"} < set(gallery["row"])
    assert len(list((built / "export/again/webdataset").glob("*.tar"))) == 1


@pytest.mark.slow
def test_what_came_back_is_what_was_exported(folder, built):
    exported = images.read(folder / "results/one/augmentation/affine/x1/split-1.parquet")
    for name in FORMS:
        back = images.read(built / f"added/{name}/images.parquet")
        assert back["class"].value_counts().to_dict() == exported["class"].value_counts().to_dict()


@pytest.mark.slow
def test_a_union_has_the_images_of_its_methods_in_exact_shares(folder, built, monkeypatch):
    """Of six images of a class three are from shards; of the rest each other method has one and a half."""
    monkeypatch.chdir(folder)
    for k in (1, 2):
        union = images.read(built / f"augmentation/union/x1/split-{k}.parquet")
        counts = union.groupby("class")["method"].value_counts().unstack().to_dict("index")
        mostly_folders = {"folders": 2, "noise": 1, "shards": 3}
        assert counts == {
            "ant": mostly_folders,
            "bee": mostly_folders | {"folders": 1, "noise": 2},
            "cow": mostly_folders,
        }
        for name in SHARES:
            own = images.read(built / f"augmentation/{name}/x1/split-{k}.parquet").set_index("image_id")
            mine = union[union["method"] == name].set_index("image_id")
            pd.testing.assert_frame_equal(mine.drop(columns="method"), own.loc[mine.index].drop(columns="method"))
            assert [images.load_bytes(row) for row in mine.itertuples()] == [
                images.load_bytes(row) for row in own.loc[mine.index].itertuples()
            ]
    lines = (built / "export/union/huggingface/train/metadata.jsonl").read_text().splitlines()
    assert sorted({str(json.loads(line)["method"]) for line in lines}) == ["None", *sorted(SHARES)]


@pytest.mark.slow
def test_the_methods_of_a_union_are_listed_once_and_not_compared_for_its_sake(folder, built):
    blocks = re.split(r"^(?:local)?rule (\w+):$", (folder / "output.txt").read_text(), flags=re.MULTILINE)
    jobs: dict[str, list[str]] = {}
    for rule, text in zip(blocks[1::2], blocks[2::2], strict=True):
        if wildcards := re.search(r"^    wildcards: .*\bmethod=(\w+)", text, re.MULTILINE):
            jobs.setdefault(rule, []).append(wildcards[1])
    assert sorted(jobs["list_added"]) == sorted([*FORMS, "noise", "sourced"])
    assert jobs["unite"] == ["union"] and set(jobs["resample"]) == {*FORMS, "noise", "sourced"}
    rows = {"noise", "sourced", "again", "union"}
    assert set(jobs["classify"]) == rows | {"none"} and set(jobs["audit"]) == rows
    assert not (built / "classifier" / "shards").exists()


@pytest.mark.slow
def test_the_report_says_where_the_images_come_from_and_what_is_short(built):
    page = re.sub(r"\s+", " ", (built / "report.html").read_text())
    assert "1 of 3 classes have fewer images than ratio 1 asks for (cow: 4 of 6)" in page
    assert "36 images made elsewhere by SDXL (licence: CC0), sourced/list.csv" in page
    assert page.count("<td>not checked</td>") == 4 + 2  # with the two that are here for the union
    assert "a union of 18 images a run: 5 of folder, 4 of Noise, 9 of webdataset" in page
    table = images.read(built / "added/sourced/images.parquet")
    assert set(table["start_image"]) <= set(images.read(built / "dataset/train.parquet")["image_id"])


@pytest.mark.slow
def test_a_touched_image_runs_its_own_method_again_and_no_other(folder, built):
    file = folder / "noise" / "ant" / "0.png"
    os.utime(file, (file.stat().st_mtime + 10,) * 2)
    code, output = run(folder, configuration(), "-n", "results/two/report.html", program=("-c", PLANNER))
    assert code == 0, output
    jobs = set(re.findall(r"^(?:local)?rule (\w+):", output, flags=re.MULTILINE))
    methods = set(re.findall(r"^    wildcards: .*\bmethod=(\w+)", output, flags=re.MULTILINE))
    assert methods == {"noise", "union"} and {"list_added", "resample", "unite", "classify", "audit"} < jobs
    assert not jobs & {"split_target", "dataset", "judge", "hash_references"}


@pytest.mark.slow
def test_a_set_made_from_a_test_image_is_refused_before_any_work(folder, built):
    test = images.read(built / "dataset/test.parquet").iloc[0]
    rows = [f"sourced/{key}-{i}.png,{key},{test['path']}" for key in KEYS for i in range(PER_CLASS)]
    (folder / "leaking.csv").write_text("\n".join(["path,class,source", *rows]) + "\n")
    config = configuration()
    config["studies"]["two"]["added"]["sourced"] = "leaking.csv"
    code, output = run(folder, config, "-n", "results/two/report.html")
    assert code != 0 and "Traceback" not in output
    assert f"was made from {test['image_id']}, an image of the test split" in output
