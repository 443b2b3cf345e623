"""The report's page and the numbers behind it, on a small study's results with hostile text in them."""

import os
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote

import pandas as pd
import pytest
from made_report import EVIL, METHODS, SETTINGS, generated, make_results

from augbench.core import files
from augbench.report import page as report_page


def test_compute_relative_to_retrieval_is_on_the_page(folder, tmp_path):
    """36 s of retrieval are 0.01 h; a method that took 90 s is at 2.5x."""
    copy = tmp_path / "digits"
    shutil.copytree(folder, copy)
    method = next(key for key, row in METHODS.items() if row.get("start") == "noise")
    jobs = {"retrieve/retrieval": 36, f"generate/{method}-base-0": 90, "classify/none-x0-1-3": 72}
    for path, seconds in jobs.items():
        files.write_text(copy / "benchmarks" / f"{path}.tsv", f"s\th:m:s\tmax_rss\n{seconds}\t0:01:00\t300\n")
    report_page.write(copy / "report.html", [report_page.gather("digits", copy, METHODS, SETTINGS, generated(copy))])
    text = (copy / "report.html").read_text(encoding="utf-8")
    part = text[text.index("Compute, relative to retrieval") :]
    part = part[: part.index("</table>")]
    assert "core-hours to make" in part
    assert '<td class="number">2.5x</td>' in part
    assert "here 0.02 to 0.02 for those of a\nmethod in Table 1, in the paper 128 to 160" in part


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results") / "digits")


@pytest.fixture(scope="module")
def page(folder):
    report_page.write(
        folder / "report.html", [report_page.gather("digits", folder, METHODS, SETTINGS, generated(folder))]
    )
    return (folder / "report.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """All start tags of a page with their attributes; checks that elements close in order."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_text_from_data_is_escaped(page):
    tags = {tag for tag, _ in Elements(page).found}
    assert not tags & {"script", "iframe", "object", "link"}
    assert "<b>only</b>" not in page
    escaped = "&lt;script&gt;alert("
    assert f"b {escaped}" in page  # class name
    assert f"prompt: a photo of {escaped}" in page
    assert f"caption: my {escaped}" in page
    assert f"note: {escaped}" in page  # configuration


def test_the_page_needs_nothing_else(folder, page):
    elements = Elements(page).found
    for tag, attributes in elements:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
            value = attributes.get(name)
            if tag == "a" and value and not value.startswith("#"):  # a file beside the page, to look up a number
                assert (folder / unquote(value)).exists(), value
            else:
                assert value is None or value.startswith("#" if tag != "img" else "data:image/"), (tag, value)
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    known = {attributes["id"] for _, attributes in elements if "id" in attributes}
    linked = {value[1:] for _, attributes in elements if (value := attributes.get("href") or "").startswith("#")}
    assert linked <= known


def test_ids_are_unique_and_the_page_is_accessible(page):
    elements = Elements(page).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(attributes.get("alt") for tag, attributes in elements if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in elements if tag == "th")
    assert [tag for tag, _ in elements].count("h1") == 1
    assert sum(tag == "table" for tag, _ in elements) == sum(tag == "caption" for tag, _ in elements)


def test_the_page_shows_what_was_measured(page):
    assert (
        "<strong>Retrieve.</strong> Retrieval (97.0\xa0±\xa00.1%) is better than each of the 2 methods that generate"
        in page
    )
    assert "none at all" in page and "3 images &lt;b&gt;" in page  # excluded class
    assert "the 10 closest of 10 candidate pairs" in page
    assert ">lost<" in page  # a fate it does not know
    assert "1 min 11 s" in page
    assert "62.6" in page
    assert len(page) < 2_000_000


def test_gathered_numbers(folder):
    study = report_page.gather("digits", folder, METHODS, SETTINGS, generated(folder))
    assert study["classes"] == {"all": 3, "kept": 2, "train": 10}
    (funnel,) = study["funnels"]
    assert dict(zip(funnel["fates"], funnel["total"], strict=True)) == {
        "used": 10, "spare": 2, "unaesthetic": 2, "duplicate": 2, "dead": 6, "unsafe": 2, "lost": 2,
    }  # fmt: skip
    assert [(row["class"], row["used"], row["wanted"]) for row in funnel["closest"]] == [
        ("empty", 0, 5),
        (EVIL, 5, 6),
        ("a", 5, 5),
    ]
    assert len(study["gallery"]["rows"]) == 5
    assert [row["method"] for row in study["figure1a"]] == ["none", "clip_prompts", "retrieval", "ft"]
    assert [row["title"] for row in study["gap"]] == ["Further real data", METHODS["ft"]["title"]]
    assert [len(cell) for cell in study["gallery"]["rows"][0]["cells"]] == [4, 4]
    assert study["table1"][0]["paper_accuracy"] == 57.2
    assert study["versions"]["pandas"] == pd.__version__


def test_missing_parts_leave_the_rest(folder, tmp_path):
    lean = make_results(tmp_path / "lean")
    for path in (*lean.glob("retrieval/*/*"), *lean.glob("audit/*/summary.json")):
        path.unlink()
    for path in (*lean.glob("classifier/*/*/*/history.csv"), *lean.glob("benchmarks/*/*.tsv")):
        path.unlink()
    (lean / "pictures" / "train-0.png").write_bytes(b"not an image")
    study = report_page.gather("lean", lean, METHODS, SETTINGS, generated(lean))
    assert study["funnels"] == []
    assert (study["audit"], study["curves"], study["stages"]) == ([], [], [])
    report_page.write(
        tmp_path / "report.html", [study, report_page.gather("full", folder, METHODS, SETTINGS, generated(folder))]
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "cannot be read" in page
    ids = [attributes["id"] for _, attributes in Elements(page).found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "s1-retrieval" not in ids and "s2-retrieval" in ids


def test_stage_times(folder, tmp_path):
    times = report_page.stage_times(folder)
    assert list(times.itertuples(index=False, name=None)) == [
        ("classify", 2, 71.0, 300.0),
        ("audit", 1, 5.0, 300.0),
    ]
    assert list(report_page.stage_times(tmp_path)) == ["stage", "jobs", "seconds", "max_rss_mb"]


def test_a_fine_tuned_method_shows_its_candidates_clusters_and_prompts(folder, page):
    study = report_page.gather("digits", folder, METHODS, SETTINGS, generated(folder))
    (item,) = study["finetuned"]
    assert (item["rate"], item["rates"], item["edge"]) == ("lr-2", {"lr-1": 0.5, "lr-2": 0.4, "lr-4": None}, None)
    assert [(row["epoch"], row["chosen"]) for row in item["candidates"]] == [(1, False), (2, True)]
    assert [len(row["pictures"]) for row in item["candidates"]] == [2, 2]  # one for each class
    (clusters,) = study["clusters"]
    assert [(row["size"], len(row["real"]), len(row["generated"])) for row in clusters["rows"]] == [
        (3, 3, 4),
        (2, 2, 2),
    ]
    (prompts,) = study["templates"]
    assert len(prompts["pictures"]) == 5
    assert "82.0%" in page and "6.25" in page and "60.0%" in page
    assert "Of the test images it recognises\n96.5%" in page
    assert "Lowest validation loss: lr-1 0.5000, lr-2 0.4000, lr-4 diverged; kept: lr-2." in page


def test_methods_are_grouped_by_family(folder):
    shuffled = {name: METHODS[name] for name in ("ft", "none", "retrieval", "clip_prompts", "more_real")}
    study = report_page.gather("digits", folder, shuffled, SETTINGS, generated(folder))
    assert [row["method"] for row in study["summaries"]] == ["ft", "none", "more_real", "retrieval", "clip_prompts"]
    assert [row["family"] for row in study["table1"]][:2] == ["fine-tuning", "baseline"]


def test_runs_that_ended_at_the_most_epochs_are_told(page):
    assert "Not all classifiers were trained to their end." in page
    assert "3 of 3 runs of CLIP &lt;script&gt;" in page
    assert "runs of Retrieval" not in page


def test_numbers_lead_to_their_files(page):
    links = {attributes.get("href") for tag, attributes in Elements(page).found if tag == "a"}
    assert {"summary/ft.json", "tables/table1.csv", "tables/differences.csv", "tables/per_class.csv"} <= links


def test_each_question_has_its_differences(folder, page):
    study = report_page.gather("digits", folder, METHODS, SETTINGS, generated(folder))
    helps, which = study["differences"]
    gains = {row["method"]: row["difference"] for row in helps["rows"]}
    assert gains == {"more_real": 7.9, "clip_prompts": 4.8, "retrieval": 6.8, "ft": 5.8}  # 98.1 - 90.2 and so on
    assert {row["other"]: row["difference"] for row in which["rows"]} == {"clip_prompts": 2.0, "ft": 1.0}
    assert [row["title"] for row in which["rows"]] == [METHODS[method]["title"] for method in ("clip_prompts", "ft")]
    assert all(row["counts"] for part in study["differences"] for row in part["rows"])
    assert ">+6.8<" in page and ">+2.0<" in page
    assert "Corrected for 4 tests" in page and "Corrected for 2 tests" in page


def test_table1_tells_the_cost_of_a_row(page):
    """Ten images to train on in batches of four, and as many added, for ten epochs; all runs add the same images."""
    row = page[page.index('href="summary/retrieval.json"') :]
    cells = re.findall(r'<td class="number">([^<]*)</td>', row[: row.index("</tr>")])
    assert cells == ["0.12", "1", "1", "3", "10.0", "50", "200", "62.6 ± 0.1"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"target": {"reader": "caltech256"}, "dataset": {"train": 0.8}}, ["Figure 6:", "figures for this data"]),
        ({"target": {"reader": "imagenet"}, "dataset": {"train": 0.9}}, ["Figure 1B:", "Azizi et al. (2023)", "78.17"]),
        ({"target": {"reader": "folder"}, "dataset": {"train": 0.8}}, ["Figure 1A:", "another data set, classifier"]),
    ],
)
def test_the_papers_figures_are_named_for_what_they_are(folder, tmp_path, target, words):
    study = report_page.gather("digits", folder, METHODS, SETTINGS | target, generated(folder))
    report_page.write(tmp_path / "report.html", [study])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(word in page for word in words)


def test_verdicts_are_told_beside_the_candidates(folder, tmp_path, monkeypatch):
    """Twelve pairs at most of one reference image: two confirmed, one unsure, the rest none."""
    monkeypatch.setattr(report_page, "VERDICTS", tmp_path)
    settings = {**SETTINGS, "seed": 0, "audit": {"inspected": 500, "in_full": ["test"]}}
    candidates = pd.read_parquet(folder / "audit" / "retrieval" / "candidates.parquet")
    table = candidates[["added_id", "reference_set", "reference_id"]]
    words = ["duplicate", "duplicate", "unsure"] + ["not"] * (len(table) - 3)
    files.write_csv(tmp_path / "digits" / "retrieval.csv", table.assign(verdict=words))
    study = report_page.gather("digits", folder, METHODS, settings, generated(folder))
    assert [review["title"] for review in study["reviews"]] == [METHODS["retrieval"]["title"]]
    found = study["reviews"][0]["sets"]["test"]
    assert (found["duplicates"], found["unsure"], found["leaked"], found["drop"]) == (2, 1, 1, 10.0)  # of 10 images
    assert (found["low"], found["high"]) == (2, 3)
    report_page.write(tmp_path / "report.html", [study])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    Elements(page)
    assert "Duplicates that people confirmed" in page
    assert '<td class="number">2 to 3</td>' in page
    assert '<td class="number">10.000</td><td class="number">10.000 to 10.000</td>' in page  # the unsure pair's is it
    assert "Duplicate candidates at further augmentation ratios" in page
    files.write_csv(tmp_path / "digits" / "retrieval.csv", table.assign(verdict=words).iloc[:2])
    report_page.write(
        tmp_path / "report.html", [report_page.gather("digits", folder, METHODS, settings, generated(folder))]
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "at least 10.000" in page and "(not all judged)" in page
    files.write_csv(tmp_path / "digits" / "retrieval.csv", table.assign(verdict="perhaps"))
    with pytest.raises(ValueError, match=r"retrieval.csv, line 2: a verdict is one of"):
        report_page.gather("digits", folder, METHODS, settings, generated(folder))


def test_classes_tell_accuracy_gain_confusions_and_pictures(folder, page):
    study = report_page.gather("digits", folder, METHODS, SETTINGS, generated(folder))
    first, second = study["per_class"]
    assert (first["class"], first["tested"], second["class"]) == ("a", 500, EVIL)
    rows = {row["title"]: row for row in first["rows"]}
    assert rows["Target data only"]["gain"] is None
    # 90.0 of 100 in the first run and 90.4, 90.2 in the others, half of the images of each class
    assert rows["Target data only"]["accuracy_mean"] == pytest.approx(90.2, abs=0.1)
    assert rows["Retrieval"]["gain"] == pytest.approx(6.8, abs=0.1)
    assert [wrong["name"] for wrong in rows["Retrieval"]["confusions"]] == [f"b {EVIL}"]
    assert [len(row["pictures"]) for row in first["rows"]] == [0, 4, 4, 4, 4]
    assert page.count("<details>") >= 2


def test_figure_5a_compares_the_best_of_both_kinds(folder):
    study = report_page.gather("digits", folder, METHODS, SETTINGS, generated(folder))
    generating, retrieving = study["improvements"]
    assert (generating["method"], retrieving["method"]) == ("ft", "retrieval")
    assert [len(generating[side]) for side in ("worst", "best")] == [1, 1]
    assert len(generating["worst"][0]["pictures"]) == 2
    gains = [row["improvement"] for row in retrieving["rows"]]
    assert gains == sorted(gains)


def test_ratios_show_the_worst_and_the_best_case(folder, page):
    study = report_page.gather("digits", folder, METHODS, SETTINGS, generated(folder))
    assert [(line["method"], len(line["rows"])) for line in study["scaling"]["lines"]] == [("retrieval", 2), ("ft", 2)]
    assert study["scaling"]["without"] == 90.2
    assert '<td class="number">94.1</td><td class="number">97.1</td>' in page  # worst and best case


def test_wall_time_counts_overlaps_once_and_pauses_never(tmp_path):
    """Jobs from 0 to 10 s, 5 to 15 s and 100 to 101 s: 16 s."""
    for name, seconds, end in (("a", 10, 10), ("b", 10, 15), ("c", 1, 101)):
        path = tmp_path / "benchmarks" / "stage" / f"{name}.tsv"
        files.write_text(path, f"s\tmax_rss\n{seconds}\t1\n")
        os.utime(path, (1e9 + end, 1e9 + end))
    assert report_page.wall_seconds(tmp_path) == pytest.approx(16)
    assert report_page.wall_seconds(tmp_path / "nothing") == 0
