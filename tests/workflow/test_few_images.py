"""A long-tailed target whose classes are topped up, drawn twice: further real, retrieved and generated images alike
fill each class, and both draws make a table."""

import re
import shutil

import pandas as pd
import pytest
import yaml
from PIL import Image

from augbench.core.files import read_json

STUDY = {
    "seed": 1,
    "methods": ["none", "more_real", "retrieval", "simple_prompt"],
    "runs": 2,
    "subsamples": 2,
    "target": {"reader": "folder", "path": "photos"},
    "dataset": {"train": 0.4, "validation": 0.1, "test": 0.1, "fill_to": "largest"},
    "evaluate": {"sketch": {"path": "sketches"}},
    "zero_shot": True,
    "safety": {"model": "none"},
    "retrieval": {"min_aesthetic": None, "min_image_size": 8, "duplicate_threshold": 0.9999},
    "generate": {"image_size": 32, "steps": 2, "times": 1},
    "classifier": {"model": "small_cnn", "image_size": 16, "batch_size": 8, "learning_rate": 0.05, "max_epochs": 2},
}


@pytest.mark.slow
def test_classes_are_topped_up_in_each_draw(clone, world):
    tree = clone()
    for place, (key, count) in enumerate({"cat": 60, "dog": 50, "owl": 10}.items()):
        for number in range(count):
            path = tree.folder / "photos" / key / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (80 * place, 3 * number, 0)).save(path)
    (tree.folder / "sketches" / "owl").mkdir(parents=True)
    Image.new("RGB", (16, 16), (160, 0, 9)).save(tree.folder / "sketches" / "owl" / "1.png")
    (tree.folder / "web").mkdir()
    shutil.copy(world.shard, tree.folder / "web")
    study = STUDY | {"pool": {"source": "shards", "path": "web"}}
    study |= {"clip": {"model": f"hf_clip:{world.clip}"}, "backbone": {"model": str(world.backbone)}}
    (tree.folder / "own.yaml").write_text(yaml.safe_dump({"studies": {"own": study}}))
    tree.study = "own.yaml"
    code, output = tree.snakemake("--cores", "2", "results/own/report.html")
    assert code == 0, output
    results = tree.folder / "results"
    classes = pd.read_csv(results / "own" / "dataset" / "classes.csv").set_index("class")
    # Of 60, 50 and 10 images 24, 20 and 4 are trained on; of the rest of owls, 4 are further ones.
    assert classes["train"].to_dict() == {"cat": 24, "dog": 20, "owl": 4}
    assert classes["wanted"].to_dict() == {"cat": 0, "dog": 4, "owl": 20}
    drawn = [results / name / "augmentation" / "more_real" / "x1" / "split-1.parquet" for name in ("own", "own-2")]
    sets = [pd.read_parquet(path) for path in drawn]
    assert all(each["class"].value_counts().to_dict() == {"dog": 4, "owl": 4} for each in sets)
    missing = {"dog": 4, "owl": 20}
    for name in ("own", "own-2"):  # only what is missing is retrieved, generated and added
        made = [results / name / "retrieval" / "retrieval" / "images.parquet"]
        made += sorted((results / name / "images" / "simple_prompt" / "base").glob("*.parquet"))
        made += [
            results / name / f"augmentation/{method}/x1/split-1.parquet" for method in ("retrieval", "simple_prompt")
        ]
        counts = [pd.read_parquet(path)["class"].value_counts().to_dict() for path in made]
        assert counts == [missing] * 4, name
    funnel = pd.read_csv(results / "own" / "retrieval" / "retrieval" / "funnel.csv").set_index("class")
    assert funnel["wanted"].to_dict() == funnel["used"].to_dict() == {"cat": 0, **missing}
    # Both draws search the same pool with the same models.
    assert not [name for name in ("pool", "backbone") if (results / "own-2" / name).exists()]
    splits = [pd.read_parquet(results / name / "dataset" / "train.parquet") for name in ("own", "own-2")]
    assert set(splits[0]["image_id"]) != set(splits[1]["image_id"])
    predicted = pd.read_parquet(results / "own" / "classifier" / "more_real" / "x1" / "run-1" / "predictions.parquet")
    assert set(predicted["class"]) == {"cat", "dog", "owl"}  # also the class to which nothing was added
    table = pd.read_csv(results / "own" / "tables" / "subsamples.csv").set_index("method")
    assert table.loc["none", ["draws", "runs"]].tolist() == [2, 2]
    first = pd.read_csv(results / "own" / "tables" / "table1.csv")
    assert {"many_mean", "medium_mean", "few_mean"} <= set(first.columns)  # 24 and 20 images are medium, 4 are few
    page = (results / "own" / "report.html").read_text()
    clip = read_json(results / "own" / "zero_shot" / "metrics.json")
    (line,) = re.findall(r'<tr><th scope="row" class="name">CLIP zero-shot</th>.*', page)
    assert f">{clip['accuracy']:.1f}</a>" in line and clip["model"] in line
    assert f"labels {clip['accuracy']:.1f}% of your test images" in (results / "own" / "answer.md").read_text()
    for text in ("Several draws of the target", "The target is long-tailed", "Further test sets"):
        assert text in page
    assert [rule for rule, _ in tree.plan("results/report.html") if rule == "study_page"] == []
