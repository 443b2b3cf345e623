"""The report of a study of the paper's size."""

import re
import time

import large
import made_report
import pytest

from augbench.core import files
from augbench.report import page as report_page
from augbench.report import study_page
from augbench.report.exhibits import per_class

pytestmark = pytest.mark.slow


def test_the_page_of_a_thousand_classes_and_thirteen_methods_is_bounded(tmp_path):
    folder = large.make_results(tmp_path / "large")
    found = made_report.results(folder, large.plan())
    gathered = study_page.gather(found)
    _, classes = gathered["per_class"]
    assert len(classes) == 1000 and len(large.METHODS) == 13
    shown = [item["training"] + [each for row in item["rows"] for each in row["pictures"]] for item in classes]
    assert {len(pictures) for pictures in shown} == {per_class.PICTURES // 1000}
    files.write_json(tmp_path / "page.json", study_page.section(found, gathered, {}))
    start = time.process_time()
    report_page.write(tmp_path / "report.html", [tmp_path / "page.json"])
    assert time.process_time() - start < 5  # what takes long was done for the study
    page = (tmp_path / "report.html").read_bytes()
    elements = len(re.findall(rb"<[a-z]", page))
    print(f"{len(page) / 1e6:.1f} MB, {elements} elements")
    assert len(page) < 40e6
    assert elements < 200 * 1000  # which a browser lays out in seconds, as most are in classes that are closed
