"""The small study as the workflow builds it."""

import json

import pandas as pd
import pytest
import yaml
from made_report import make_results

from augbench import images

FINE_TUNED = "cluster_dm"  # plays `ft` of the results that are made for tests of the report


def shape(path):
    """Columns of a table, or keys of a JSON object, and of those in it that all have."""
    if path.suffix == ".parquet":
        return list(pd.read_parquet(path))
    if path.suffix == ".csv":
        return list(pd.read_csv(path))
    found = json.loads(path.read_text())
    return sorted(found)


def test_results_made_for_tests_of_the_report_look_like_these(built, tmp_path):
    """What a stage writes and what is written by hand in its place have the same columns or keys."""
    made, real = make_results(tmp_path / "made"), built.folder / "results" / "small"
    compared = []
    for path in sorted(path for kind in ("parquet", "csv", "json") for path in made.rglob(f"*.{kind}")):
        name = str(path.relative_to(made))
        other = name.replace("/ft", f"/{FINE_TUNED}").replace("run-3", "run-1")
        other = real / other.replace("lr-2", "lr-1").replace("lr-4", "lr-1")
        expected = shape(other)
        found = shape(path)
        if name.endswith("funnel.csv"):
            assert found.pop() == "lost"
        assert found == expected, name
        compared.append(name)
    assert len(compared) > 60


def test_the_report_counts_the_time_of_every_job(built):
    """Each benchmark file of a fresh study is one that the report expects, and none is counted twice."""
    results = built.folder / "results" / "small"
    measured = sorted(path for path in results.glob("benchmarks/*/*.tsv") if path.parent.name != "export")
    assert pd.read_csv(results / "tables" / "compute.csv")["jobs"].sum() == len(measured)


@pytest.mark.slow
def test_clip_scores_choose_images_and_clip_sees_sets_of_them(built):
    """A row that keeps the images most like their class's prompt, and metrics of image sets in CLIP's eyes."""
    study = yaml.safe_load((built.folder / built.study).read_text())
    closest = {"filter": {"by": "clip", "keep": 0.5, "allow_fewer": True}, "start": "noise", "family": "mine"}
    study["methods"]["closest"] = closest | {"title": "Closest", "conditioning": "clip_prompts"}
    study["studies"]["small"]["methods"] += ["closest"]
    study["studies"]["small"]["metrics"] = {"encoder": "clip"}
    (built.folder / "mine.yaml").write_text(yaml.safe_dump(study))
    results = built.folder / "results" / "small"
    wanted = ("results/small/tables/set_metrics.csv", "results/small/augmentation/closest/x1/split-1.parquet")
    arguments = ("--configfile", "mine.yaml", "--", *wanted)
    assert "generate" not in {rule for rule, _ in built.plan(*arguments)}  # clip_prompts made the images
    code, output = built.snakemake("--cores", "2", *arguments)
    assert code == 0, output
    scores = pd.read_parquet(results / "scores" / "clip_prompts" / "main" / "scores.parquet").set_index("image_id")
    kept = images.read(results / "filtered" / "closest" / "main" / "images.parquet")["image_id"]
    for _, each in scores.groupby("class"):
        mine = each.index.isin(kept)
        assert mine.sum() == -(-len(each) // 2)
        assert each["clip"][mine].min() >= each["clip"][~mine].max()
    metrics = pd.read_csv(results / "tables" / "set_metrics.csv")
    assert set(metrics["encoder"]) == {"clip"}
    assert set(metrics["method"]) == set(study["studies"]["small"]["methods"]) - {"none"}
