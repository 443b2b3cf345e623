"""What a study plans for a union: the images of its methods once, whether these are compared themselves or not. And one
that is really made, with the row of the method table."""

import json

import pytest
import yaml

from augbench import images

UNION = {"title": "Both", "family": "union", "start": "methods", "of": {"retrieval": 0.5, "clip_prompts": 0.5}}
COMPARED = ("classify", "summary", "audit", "hash_added", "review")


@pytest.mark.middle
def test_images_are_made_once_and_only_rows_are_compared(clone):
    tree = clone()

    def jobs(methods) -> list[tuple[str, str]]:
        study = yaml.safe_load((tree.folder / tree.study).read_text())
        study["methods"]["both"] = UNION
        study["studies"]["small"]["methods"] = methods
        (tree.folder / "mine.yaml").write_text(yaml.safe_dump(study))
        planned = tree.plan("results/small/report.html", "--configfile", "mine.yaml")
        methods = [text.partition("method=")[2].partition(",")[0].split() for _, text in planned]
        return sorted((rule, *method[:1]) for (rule, _), method in zip(planned, methods, strict=True))

    alone = jobs(["none", "both"])
    made = [job for job in alone if job[0] in ("retrieve", "generate", "resample", "unite")]
    assert made == [
        ("generate", "clip_prompts"), ("resample", "clip_prompts"), ("resample", "retrieval"),
        ("retrieve", "retrieval"), ("unite", "both"),
    ]  # fmt: skip
    assert [job for job in alone if job[0] in COMPARED] == sorted(
        (rule, method) for method in ("none", "both") for rule in COMPARED if method == "both" or rule in COMPARED[:2]
    )
    further = [(rule, method) for rule in COMPARED for method in UNION["of"]]
    assert jobs(["none", "both", "retrieval", "clip_prompts"]) == sorted([*alone, *further])


@pytest.mark.slow
def test_the_row_of_the_method_table_trains_on_halves_of_what_is_there(built):
    name = "retrieval_and_clip_prompts"
    study = yaml.safe_load((built.folder / built.study).read_text())
    study["studies"]["small"]["methods"].append(name)
    (built.folder / "mine.yaml").write_text(yaml.safe_dump(study))
    results = built.folder / "results" / "small"
    wanted = ("--configfile", "mine.yaml", "--", f"results/small/classifier/{name}/x1/run-1/metrics.json")
    assert {rule for rule, _ in built.plan(*wanted)} == {"unite", "classify"}
    code, output = built.snakemake("--cores", "2", *wanted)
    assert code == 0, output
    added = images.read(results / "augmentation" / name / "x1" / "split-1.parquet")
    counts = added["method"].value_counts()
    assert set(counts.index) == {"retrieval", "clip_prompts"} and abs(counts["retrieval"] - counts["clip_prompts"]) <= 1
    train = images.read(results / "dataset" / "train.parquet")
    assert added["class"].value_counts().to_dict() == train["class"].value_counts().to_dict()
    metrics = json.loads((results / "classifier" / name / "x1" / "run-1" / "metrics.json").read_text())
    assert metrics["n_train"] == 2 * len(train) and metrics["n_classes"] == train["class"].nunique()
