"""Further augmentation ratios come on top of Table 1, which stays as it is."""

import pandas as pd
import pytest
import yaml

from augbench import images

pytestmark = pytest.mark.slow

SCALED = ["clip_prompts", "cluster_dm", "retrieval"]
TABLE1 = (  # all that it rests on, beside its own bytes
    "dataset/*",
    "retrieval/*/*.*",
    "images/*/base/*",
    "images/*/selected/*",
    "selection/*.json",
    "augmentation/*/x1/*",
    "classifier/*/x1/*/*",
    "tables/table1.csv",
)


def test_adding_ratios_leaves_table_1_byte_identical(built):
    study = yaml.safe_load((built.folder / built.study).read_text())
    study["studies"]["small"]["scaling"] = {"methods": SCALED, "ratios": [0.5, 4]}
    (built.folder / "scaled.yaml").write_text(yaml.safe_dump(study))
    before = built.digests(*TABLE1)
    times = {name: (built.folder / "results/small" / name).stat().st_mtime_ns for name in before}
    given = ("results/small/tables/scaling.csv", "--configfile", "scaled.yaml", "--cores", "2")
    code, output = built.snakemake(*given)
    assert code == 0, output
    after = built.digests(*TABLE1)
    assert len(before) > 100
    assert {name for name in before if after[name] != before[name]} == set()
    # Nothing of it was even made again, but for the tables.
    redone = {name for name in before if (built.folder / "results/small" / name).stat().st_mtime_ns != times[name]}
    assert redone <= {"tables/table1.csv"}
    results = built.folder / "results" / "small"
    for method in SCALED:
        main, wide = (
            images.read(results / "augmentation" / method / ratio / "split-1.parquet") for ratio in ("x1", "x4")
        )
        counts = main["class"].value_counts()
        assert (wide["class"].value_counts() <= 4 * counts).all()
        assert not wide["image_id"].duplicated().any()
    assert set(main["image_id"]) <= set(wide["image_id"])  # retrieval: the most similar ones are in each
    assert not wide["sha256"].duplicated().any()
    scaling = pd.read_csv(results / "tables" / "scaling.csv").set_index("method")["ratio"]
    assert [sorted(scaling[method]) for method in SCALED] == [[0.5, 1, 4]] * 3
