import json

import large
import pytest

from augbench import class_details, report

pytestmark = pytest.mark.slow


def test_a_thousand_classes_and_thirteen_methods_stay_under_40_megabytes(tmp_path):
    folder = large.make_results(tmp_path / "large")
    made = {
        method: [folder / "augmentation" / method / "x1" / "split-1.parquet"]
        for method in large.METHODS
        if method != "none"
    }
    study = report.gather("large", folder, large.METHODS, large.SETTINGS, made)
    assert len(study["per_class"]) == 1000 and len(large.METHODS) == 13
    shown = [
        item["training"] + [each for row in item["rows"] for each in row["pictures"]] for item in study["per_class"]
    ]
    assert {len(pictures) for pictures in shown} == {class_details.PICTURES // 1000}
    report.write(tmp_path / "report.html", [study])
    size = (tmp_path / "report.html").stat().st_size
    print(json.dumps({"megabytes": size / 1e6}))
    assert size < 40e6
