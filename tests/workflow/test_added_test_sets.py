"""A test set that is added to a study that was built: the classifiers that there are are scored on it, and nothing is
trained again."""

import pandas as pd
import pytest
import yaml
from PIL import Image

STUDY = {
    "seed": 1,
    "methods": ["none", "more_real"],
    "runs": 2,
    "target": {"reader": "folder", "path": "photos"},
    "dataset": {"shots": 4, "validation": 0.2, "test": 0.2},
    "classifier": {"model": "small_cnn", "image_size": 16, "batch_size": 4, "learning_rate": 0.05, "max_epochs": 2},
}


@pytest.mark.slow
def test_only_scoring_runs(clone):
    tree = clone()
    for place, key in enumerate(("cat", "dog", "owl")):
        for number in range(20):
            path = tree.folder / "photos" / key / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (80 * place, 3 * number, 0)).save(path)
        if key != "owl":
            path = tree.folder / "sketches" / str(place) / "1.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (16, 16), (80 * place, 0, 9)).save(path)

    def configure(**sections):
        (tree.folder / "own.yaml").write_text(yaml.safe_dump({"studies": {"own": STUDY | sections}}))

    tree.study = "own.yaml"
    configure()
    code, output = tree.snakemake("--cores", "2", "results/own/tables/table1.csv")
    assert code == 0, output
    configure(evaluate={"sketch": {"path": "sketches", "classes": "position"}})
    table = "results/own/tables/evaluation.csv"
    assert tree.planned(table) == {
        ("list_test_set", ""), ("evaluate", "none"), ("evaluate", "more_real"), ("evaluation", "")
    }  # fmt: skip
    planned = tree.planned("results/own/report.html")
    assert not {rule for rule, _ in planned} & {"split_target", "dataset", "resample", "classify"}
    assert {("hash_references", ""), ("audit", "more_real")} <= planned  # its images are compared with the added ones
    code, output = tree.snakemake("--cores", "2", table, "results/own/audit/more_real/summary.json")
    assert code == 0, output
    found = pd.read_csv(tree.folder / table).set_index(["set", "method"])
    assert found.loc[("sketch", "none"), ["images", "classes", "runs"]].tolist() == [2, 2, 2]
    assert len(found) == 4
    predicted = pd.read_parquet(tree.folder / "results/own/evaluation/sketch/none/x0/run-1.parquet")
    assert set(predicted["predicted"]) <= {"cat", "dog"}
