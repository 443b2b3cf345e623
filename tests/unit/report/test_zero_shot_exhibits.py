"""How the report and the answer show CLIP's zero-shot classification."""

import re

import pytest
from made_report import EVIL, make_results, plan, results, section

from augbench.core.files import BadInput, write_json
from augbench.report.answer import answer, markdown
from augbench.report.study_options import facts

METRICS = {
    "accuracy": 71.25,
    "n_classes": 2,
    "n_test": 1000,
    "model": f"hf_clip:{EVIL}",
    "prompts": ["A {n}.", "No {n}."],
}


@pytest.fixture
def study(tmp_path):
    def shown(**metrics):
        folder = make_results(tmp_path / "study")
        write_json(folder / "zero_shot" / "metrics.json", METRICS | metrics)
        return results(folder, plan(zero_shot=True), zero_shot=str(folder / "zero_shot" / "metrics.json"))

    return shown


def test_table1_has_a_line_below_its_methods(study):
    html = section(study(), "table1")
    line = re.search("<tfoot>(.*)</tfoot>", html, re.DOTALL)[1]
    assert "CLIP zero-shot" in line and ">71.2</a>" in line and 'data-file="zero_shot/metrics.json"' in line
    assert html.index("</tbody>") < html.index("<tfoot>")
    columns = len(re.findall("<th ", html[html.index("<thead>") : html.index("</thead>")]))
    assert columns == 2 + int(re.search('colspan="([0-9]+)"', line)[1])
    assert "each of 1,000 test images" in html and "“A NAME.” and “No NAME.”" in html and "may have seen" in html
    assert EVIL not in html


def test_a_study_without_it_says_nothing_of_it(tmp_path):
    shown = results(make_results(tmp_path / "study"), plan())
    html = section(shown, "table1")
    assert "tfoot" not in html and "zero-shot" not in html
    assert "Without training" not in markdown("s", answer(facts(shown)))


@pytest.mark.parametrize(("accuracy", "more"), [(71.25, False), (99.0, True)])
def test_the_answer_sets_it_beside_the_best_trained_classifier(study, accuracy, more):
    """The best of the study is further real data, with 98.1%."""
    (line,) = [row for row in answer(facts(study(accuracy=accuracy)))["lines"] if row["label"] == "Without training"]
    text = " ".join(line["sentences"])
    assert text.startswith(f"CLIP (hf_clip:{EVIL}) labels {accuracy:.1f}% of your test images correctly by the names")
    assert "reaches 98.1% at best, with Further real data." in text and "may have seen your test images" in text
    assert ("a pretrained classifier" in text) == more


def test_a_missing_file_is_an_error(study, tmp_path):
    shown = study()
    (tmp_path / "study" / "zero_shot" / "metrics.json").unlink()
    with pytest.raises(BadInput, match="zero_shot/metrics.json, which is missing"):
        section(shown, "table1")
