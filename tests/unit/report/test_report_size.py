"""The report of a study of the paper's size."""

import re

import large
import pytest

from augbench.report import class_details
from augbench.report import page as report_page

pytestmark = pytest.mark.slow


def test_the_page_of_a_thousand_classes_and_thirteen_methods_is_bounded(tmp_path):
    folder = large.make_results(tmp_path / "large")
    made = {
        method: [folder / "augmentation" / method / "x1" / "split-1.parquet"]
        for method in large.METHODS
        if method != "none"
    }
    study = report_page.gather("large", folder, large.METHODS, large.SETTINGS, made)
    assert len(study["per_class"]) == 1000 and len(large.METHODS) == 13
    shown = [
        item["training"] + [each for row in item["rows"] for each in row["pictures"]] for item in study["per_class"]
    ]
    assert {len(pictures) for pictures in shown} == {class_details.PICTURES // 1000}
    report_page.write(tmp_path / "report.html", [study])
    page = (tmp_path / "report.html").read_bytes()
    elements = len(re.findall(rb"<[a-z]", page))
    print(f"{len(page) / 1e6:.1f} MB, {elements} elements")
    assert len(page) < 40e6
    assert elements < 200 * 1000  # which a browser lays out in seconds, as most are in classes that are closed
