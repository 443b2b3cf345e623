"""The report's page and the numbers behind it, on a small study's results with hostile text in them."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from made_report import EVIL, METHODS, exhibits, make_results, plan, results, section, write_page

from augbench import images
from augbench.core import benchmarks, files
from augbench.report import catalogue
from augbench.report import page as report_page


def test_compute_relative_to_retrieval_is_on_the_page(folder, tmp_path):
    """36 s of retrieval are 0.01 h; a method that took 90 s is at 2.5x."""
    jobs = [
        ("retrieve/retrieval", 36, "retrieval", ""),
        ("generate/clip_prompts-base-0", 90, "clip_prompts", "base"),
        ("classify/none-x0-1-3", 72, "none", "x0"),
    ]
    measured = []
    for path, seconds, method, part in jobs:
        file = tmp_path / "benchmarks" / f"{path}.tsv"
        files.write_text(file, f"s\th:m:s\tmax_rss\n{seconds}\t0:01:00\t300\n")
        measured.append(benchmarks.Job(str(file), path.split("/")[0], method, part))
    found = results(folder, plan())
    found.measurements = benchmarks.measure(measured)
    text = section(found, "relative")
    part = text[text.index("Compute, relative to retrieval") :]
    part = part[: part.index("</table>")]
    assert "core-hours to make" in part
    assert '<td class="number">2.5x</td>' in part
    assert "here 0.02 to 0.02 for those of a method in Table 1, in the paper 128 to 160" in part


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results") / "digits")


@pytest.fixture(scope="module")
def page(folder):
    return write_page(folder, plan())


@pytest.fixture(scope="module")
def shown(folder):
    return exhibits(folder, plan())


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
    tags = [tag for tag, _ in Elements(page).found]
    assert not set(tags) & {"iframe", "object", "link"}
    assert tags.count("script") == 1  # the page's own, which no text from data is part of
    assert "<b>only</b>" not in page
    escaped = "&lt;script&gt;alert("
    assert f"b {escaped}" in page  # class name
    assert f"prompt: a photo of {escaped}" in page
    assert f"caption: my {escaped}" in page
    assert f"path: {escaped}" in page  # configuration


def test_the_page_needs_nothing_else(folder, page):
    elements = Elements(page).found
    for tag, attributes in elements:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
            value = attributes.get(name)
            if tag == "a" and value and not value.startswith("#"):  # a file beside the page, to look up a number
                assert (folder / unquote(value)).exists() or "/" in value, value  # figures are not written here
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


def test_the_page_links_every_figure_of_the_catalogue(page):
    for name in catalogue.figures(plan()):
        assert f'<a href="figures/{name}.pdf">' in page, name


def test_the_page_shows_what_was_measured(page):
    assert (
        "<strong>Retrieve.</strong> Retrieval (97.0\xa0±\xa00.1%) is better than each of the 2 methods that generate"
        in page
    )
    assert "none at all" in page and "3 images &lt;b&gt;" in page  # excluded class
    assert "the 10 closest of 10 candidate pairs" in page
    assert ">lost<" in page  # a fate it does not know
    assert "19 of 25 links that were asked for, on\n2 hosts, still answer\n(76%)" in page
    assert "1 min 11 s" in page
    assert "62.6" in page
    assert len(page) < 2_000_000


def test_gathered_numbers(folder, shown):
    funnel = shown["funnel-retrieval"]
    assert dict(zip(funnel["fates"], funnel["total"], strict=True)) == {
        "used": 10, "spare": 2, "unaesthetic": 2, "duplicate": 2, "dead": 6, "unsafe": 2, "lost": 2,
    }  # fmt: skip
    assert [(row["class"], row["used"], row["wanted"]) for row in funnel["closest"]] == [
        ("empty", 0, 5),
        (EVIL, 5, 6),
        ("a", 5, 5),
    ]
    assert len(shown["figure4"]["rows"]) == 5
    assert [row["method"] for row in shown["figure1a"]["rows"]] == ["none", "clip_prompts", "ft", "retrieval"]
    assert [row["method"] for row in shown["domain_gap"]["rows"]] == ["more_real", "clip_prompts", "ft", "retrieval"]
    assert [len(cell) for cell in shown["figure4"]["rows"][0]["cells"]] == [4, 4]
    assert shown["table1"]["rows"][0]["paper_accuracy"] == 57.2


def test_an_image_that_cannot_be_read_leaves_the_rest(folder):
    picture = Path(images.read(folder / "dataset" / "train.parquet")["path"][0])
    hidden = picture.rename(picture.with_name("hidden"))
    try:
        picture.write_bytes(b"not an image")
        text = section(results(folder, plan()), "figure4")
    finally:
        hidden.replace(picture)
    assert "cannot be read" in text and "data:image/" in text


@pytest.mark.parametrize(
    "path",
    [
        "tables/table1.csv",
        "tables/domain_gap.csv",
        "tables/set_metrics.csv",
        "retrieval/retrieval/funnel.csv",
        "retrieval/retrieval/hosts.csv",
        "audit/ft/summary.json",
        "audit/clip_prompts/candidates.parquet",
        "classifier/more_real/x1/run-2/history.csv",
        "finetune/ft/lr-2.csv",
        "images/clip_prompts/base/shard-0.parquet",
        "selection/ft.json",
        "finetune/clusters.parquet",
    ],
)
def test_a_missing_input_is_an_error_that_names_it(folder, path):
    """Nothing that should be there is left out in silence."""
    place = folder / path
    hidden = place.rename(place.with_name("hidden"))
    try:
        with pytest.raises(files.BadInput, match=f"the report needs .*{path}, which is missing"):
            exhibits(folder, plan())
    finally:
        hidden.rename(place)


def test_what_lies_there_from_another_configuration_is_not_shown(folder):
    """The same results, of a study that asks for two of the methods and for no further ratios."""
    fewer = plan({key: METHODS[key] for key in ("none", "clip_prompts")}, scaling={})
    names = set(exhibits(folder, fewer))
    assert {"figure1a", "figure11", "domain_gap", "figure9"} <= names
    assert not names & {"funnel-retrieval", "figure5b", "figure10", "losses", "figure8"}


@pytest.mark.middle  # takes seconds
def test_two_studies_are_joined_from_their_sections(folder, page, tmp_path):
    """Links lead from either page to the files of each study, and ids are unique."""
    place = tmp_path / "results"
    shutil.copytree(folder, place / "digits")  # with its page
    fewer = plan({key: METHODS[key] for key in ("none", "retrieval")}, scaling={})
    fewer.name = "other.one"
    shutil.copytree(folder, place / "other.one")
    write_page(place / "other.one", fewer)
    report_page.write(place / "report.html", [place / "digits" / "page.json", place / "other.one" / "page.json"])
    for path in (place / "report.html", place / "digits" / "report.html"):
        elements = Elements(path.read_text(encoding="utf-8")).found
        links = [attributes["href"] for tag, attributes in elements if tag == "a"]
        lead = [unquote(link) for link in links if not link.startswith("#")]
        assert len(lead) > 40
        assert all("figures/" in link or "compute.csv" in link or (path.parent / link).is_file() for link in lead)
        ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert "other.one-retrieval" in ids or "digits-retrieval" in ids


def test_a_fine_tuned_method_shows_its_candidates_clusters_and_prompts(shown, page):
    (item,) = shown["losses"]
    assert (item["rate"], item["rates"], item["edge"]) == ("lr-2", {"lr-1": 0.5, "lr-2": 0.4, "lr-4": None}, None)
    assert [(row["epoch"], row["chosen"]) for row in item["candidates"]] == [(1, False), (2, True)]
    assert [len(row["pictures"]) for row in item["candidates"]] == [2, 2]  # one for each class
    (clusters,) = shown["figure10"]
    assert [(row["size"], len(row["real"]), len(row["generated"])) for row in clusters["rows"]] == [
        (3, 3, 4),
        (2, 2, 2),
    ]
    (prompts,) = shown["figure11"]
    assert len(prompts["pictures"]) == 5
    assert "82.0%" in page and "6.25" in page and "60.0%" in page
    assert "It recognises 96.5% of the\ntest images" in page
    assert "Lowest validation loss: lr-1 0.5000, lr-2 0.4000, lr-4 diverged; kept: lr-2." in page


def test_methods_are_grouped_by_family_in_the_papers_order(folder):
    shuffled = plan({name: METHODS[name] for name in ("ft", "none", "retrieval", "clip_prompts", "more_real")})
    order = ["none", "more_real", "clip_prompts", "ft", "retrieval"]
    assert [row["method"] for row in results(folder, shuffled).summaries] == order
    assert [row["method"] for row in exhibits(folder, shuffled)["table1"]["rows"]] == order


def test_a_family_of_ones_own_is_shown_like_the_papers(folder):
    """A sixth family, of the best method that generates: in its own colour wherever there are families."""
    methods = METHODS | {"ft": METHODS["ft"] | {"family": "distillation"}}
    study = plan(methods)
    shown = exhibits(folder, study)
    colour = study.colours["distillation"]
    assert list(study.colours) == ["baseline", "prompting", "retrieval", "distillation"]
    assert len(set(study.colours.values())) == 4
    for name in ("figure1a", "accuracy", "table1", "domain_gap"):
        assert {row["method"]: row["colour"] for row in shown[name]["rows"]}["ft"] == colour, name
    rows = [row for part in shown["differences"] for row in part["rows"] if row["family"] == "distillation"]
    assert len(rows) == 2 and {row["colour"] for row in rows} == {colour}
    assert {line["method"]: line["colour"] for line in shown["figure5a"]}["ft"] == colour
    assert any(row["method"] == "ft" for row in shown["per_class"][0]["rows"])
    answer = results(folder, study).answer
    assert answer["verdict"] == "Retrieve." and METHODS["ft"]["title"] in answer["sentence"]
    text = section(results(folder, study), "table1")
    assert f'style="background:{colour}" aria-hidden="true"></span>distillation' in text


def test_runs_that_ended_at_the_most_epochs_are_named(page):
    assert "Not all classifiers finished training." in page
    assert "3 of 3 runs of CLIP &lt;script&gt;" in page
    assert "runs of Retrieval" not in page


def test_numbers_lead_to_their_files(page):
    links = {attributes.get("href") for tag, attributes in Elements(page).found if tag == "a"}
    assert {"summary/ft.json", "tables/table1.csv", "tables/differences.csv", "tables/per_class.csv"} <= links


def test_each_question_has_its_differences(shown, page):
    helps, which = shown["differences"]
    gains = {row["method"]: row["difference"] for row in helps["rows"]}
    assert gains == {"more_real": 7.9, "clip_prompts": 4.8, "retrieval": 6.8, "ft": 5.8}  # 98.1 - 90.2 and so on
    assert {row["other"]: row["difference"] for row in which["rows"]} == {"clip_prompts": 2.0, "ft": 1.0}
    assert [row["title"] for row in which["rows"]] == [METHODS[method]["title"] for method in ("clip_prompts", "ft")]
    assert all(row["counts"] for part in shown["differences"] for row in part["rows"])
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
        ({"target": {"reader": "folder"}, "dataset": {"train": 0.8}}, ["Figure 1A:", "another data set, class"]),
    ],
)
def test_the_papers_figures_are_named_for_what_they_are(folder, target, words):
    target["target"] |= {"path": "images"}
    page = section(results(folder, plan(**target)), "figure1a", "table1")
    assert all(word in page for word in words)


def test_the_report_says_how_many_validation_images_few_shots_have(folder):
    text = " ".join(section(results(folder, plan(dataset={"shots": 5})), "table1").split())
    assert "2 classes with 10 training images in all (5 of each class). 3 validation images say when training" in text
    plain = " ".join(section(results(folder, plan()), "table1").split())
    assert "2 classes with 10 training images in all. 3 validation images say when training" in plain


@pytest.mark.middle  # takes seconds
def test_verdicts_are_reported_beside_the_candidates(folder, tmp_path):
    """Twelve pairs at most of one reference image: two confirmed, one unsure, the rest none."""
    study = plan(seed=0, audit={"inspected": 500, "in_full": ["test"]})
    judged = {"verdicts": {"retrieval": str(tmp_path / "retrieval.csv")}}
    candidates = pd.read_parquet(folder / "audit" / "retrieval" / "candidates.parquet")
    table = candidates[["added_id", "reference_set", "reference_id"]]
    words = ["duplicate", "duplicate", "unsure"] + ["not"] * (len(table) - 3)
    files.write_csv(tmp_path / "retrieval.csv", table.assign(verdict=words))
    (review,) = exhibits(folder, study, **judged)["reviews"]
    assert review["title"] == METHODS["retrieval"]["title"]
    counts = review["sets"]["test"]
    assert (counts["duplicates"], counts["unsure"], counts["leaked"], counts["drop"]) == (2, 1, 1, 10.0)  # of 10 images
    assert (counts["low"], counts["high"]) == (2, 3)
    page = section(results(folder, study, **judged), "audit", "reviews")
    Elements(page)
    assert "Duplicates that people confirmed" in page
    assert '<td class="number">2 to 3</td>' in page
    assert '<td class="number">10.000</td><td class="number">10.000 to 10.000</td>' in page  # the unsure pair's is it
    assert "Duplicate candidates at further augmentation ratios" in page
    files.write_csv(tmp_path / "retrieval.csv", table.assign(verdict=words).iloc[:2])
    page = section(results(folder, study, **judged), "reviews")
    assert "at least 10.000" in page and "(not all judged)" in page
    files.write_csv(tmp_path / "retrieval.csv", table.assign(verdict="perhaps"))
    with pytest.raises(ValueError, match=r"retrieval.csv, line 2: a verdict is one of"):
        exhibits(folder, study, **judged)


def test_classes_tell_accuracy_gain_confusions_and_pictures(shown, page):
    first, second = shown["per_class"]
    assert (first["class"], first["tested"], second["class"]) == ("a", 500, EVIL)
    rows = {row["title"]: row for row in first["rows"]}
    assert rows["Target data only"]["gain"] is None
    # 90.0 of 100 in the first run and 90.4, 90.2 in the others, half of the images of each class
    assert rows["Target data only"]["accuracy_mean"] == pytest.approx(90.2, abs=0.1)
    assert rows["Retrieval"]["gain"] == pytest.approx(6.8, abs=0.1)
    assert [wrong["name"] for wrong in rows["Retrieval"]["confusions"]] == [f"b {EVIL}"]
    assert [len(row["pictures"]) for row in first["rows"]] == [0, 4, 4, 4, 4]
    assert page.count("<details>") >= 2


def test_figure_5a_compares_the_best_of_both_kinds(shown):
    generating, retrieving = shown["figure5a"]
    assert (generating["method"], retrieving["method"]) == ("ft", "retrieval")
    assert [len(generating[side]) for side in ("worst", "best")] == [1, 1]
    assert len(generating["worst"][0]["pictures"]) == 2
    gains = [row["improvement"] for row in retrieving["rows"]]
    assert gains == sorted(gains)


def test_ratios_show_the_worst_and_the_best_case(shown, page):
    assert [(line["method"], len(line["rows"])) for line in shown["figure5b"]["lines"]] == [("ft", 2), ("retrieval", 2)]
    assert shown["figure5b"]["without"] == 90.2
    assert '<td class="number">94.1</td><td class="number">97.1</td>' in page  # worst and best case
