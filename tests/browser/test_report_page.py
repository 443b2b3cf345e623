"""The report and the status page as a reader meets them: opened from disk, in light and dark, on a phone."""

import large
import pytest
from made_report import EVIL, METHODS, make_results, plan, write_page, write_report

from augbench.core import files
from augbench.jobs import status
from augbench.report import page as report_page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = make_results(tmp_path_factory.mktemp("results") / "digits")
    write_report(folder, plan())
    report_page.write(folder.parent / "report.html", [folder / "page.json"])
    return (folder.parent / "report.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_accessible(page, serious, address, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert serious(page) == []


def test_text_from_data_is_text(page, address):
    page.goto(address)
    assert page.locator("script").count() == 1  # the page's own
    assert page.get_by_text(f"b {EVIL}").count() > 0
    assert page.locator("b", has_text="only").count() == 0


def test_pictures_are_seen_and_links_lead_to_files(page, address):
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.evaluate("Promise.all([...document.images].map(each => { each.loading = 'eager'; return each.decode(); }))")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    for link in page.locator("a[href$='.json'], a[href$='.csv'], a[href$='.svg']").all()[:20]:
        assert page.evaluate("link => new URL(link.href).protocol", link.element_handle()) == "file:"
    page.locator("a[href$='figure5a.svg']").first.click()
    page.wait_for_url("**/figures/figure5a.svg")


def test_classes_open_by_keyboard(page, address):
    page.goto(address)
    row = page.locator(".classes details").first
    row.locator("summary").focus()
    page.keyboard.press("Enter")
    assert row.get_attribute("open") is not None
    assert row.locator("th[scope=row]").count() == len(METHODS)


@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_sticks_out(page, address, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def column(table, number):
    return [text.split("\n")[0] for text in table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()]


def test_a_table_is_sorted_by_its_headers(page, serious, address):
    """By mouse and keyboard: numbers from the largest, texts from A, what is missing last; then as it was."""
    page.goto(address)
    table = page.get_by_role("region", name="Table 1, scrollable").locator("table")
    was = column(table, 1)
    accuracy = table.get_by_role("columnheader", name="Accuracy")
    accuracy.get_by_role("button").click()
    assert column(table, 2) == ["98.1", "97.0", "96.0", "95.0", "90.2"]
    assert accuracy.get_attribute("aria-sort") == "descending"
    assert table.locator("[aria-sort]").count() == 1
    assert serious(page) == []
    page.keyboard.press("Enter")  # the button has the focus
    assert column(table, 2) == ["90.2", "95.0", "96.0", "97.0", "98.1"]
    assert accuracy.get_attribute("aria-sort") == "ascending"
    paper = table.get_by_role("columnheader", name="Paper")
    paper.get_by_role("button").click()
    assert column(table, 10) == ["70.2 ± 0.3", "62.6 ± 0.1", "60.9 ± 0.2", "57.2 ± 0.2", "–"]
    method = table.get_by_role("columnheader", name="Method")
    method.get_by_role("button").click()
    assert column(table, 1) == sorted(was)
    for _ in range(2):
        method.get_by_role("button").click()
    assert column(table, 1) == was and table.locator("[aria-sort]").count() == 0


def test_rows_below_one_heading_are_sorted_each_with_it(page, address):
    page.goto(address)
    table = page.get_by_role("region", name="Table of accuracy by ratio, scrollable").locator("table")
    before = table.locator("tbody").all_inner_texts()
    ratio = table.get_by_role("columnheader", name="Ratio").get_by_role("button")
    ratio.click()
    assert column(table, 2) == ["4", "4", "1", "1"]
    assert sorted(column(table, 1)) == sorted(2 * [METHODS[key]["title"] for key in ("retrieval", "ft")])
    ratio.click()
    assert column(table, 2) == ["1", "1", "4", "4"]
    ratio.click()
    assert table.locator("tbody").all_inner_texts() == before


def test_a_wide_screen_is_used(page, address):
    """At 1,440 pixels: Table 1 takes nine tenths of them, and a figure stands beside its tables."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(address)
    table = page.get_by_role("region", name="Table 1, scrollable").locator("table").bounding_box()
    assert table["width"] > 0.9 * 1440
    figure = page.locator("figure[aria-label^='Differences']").bounding_box()
    beside = page.get_by_role("region", name="Table of differences, helps").bounding_box()
    assert beside["x"] > figure["x"] + figure["width"] and beside["y"] < figure["y"] + figure["height"]
    first = page.locator(".answer").bounding_box()
    assert first["y"] + first["height"] < 900  # the answer is seen without scrolling


def test_a_page_of_a_thousand_classes_opens(page, tmp_path):
    """How much a browser has to do for it is bounded in `unit/report/test_report_size.py`."""
    folder = large.make_results(tmp_path / "large")
    write_page(folder, large.plan())
    page.goto((folder / "report.html").as_uri())
    assert page.locator(".classes details").count() == 1000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_status_page_is_accessible(page, serious, tmp_path, scheme):
    jobs = {1: status.Job("train", "s", "m"), 2: status.Job("train", "s", EVIL)}
    progress = status.Progress(jobs, 0.0)
    progress.started([1], 0.0)
    log = tmp_path / "train.log"
    log.write_text(EVIL)
    progress.failed(2, [str(log)])
    (tmp_path / "status.html").write_text(status.page(progress, EVIL, 9.0, "now"), encoding="utf-8")
    page.emulate_media(color_scheme=scheme)
    page.goto((tmp_path / "status.html").as_uri())
    assert serious(page) == []
    assert page.locator("pre").inner_text() == EVIL


def test_the_status_page_loads_itself_again_until_it_is_paused(page, tmp_path, monkeypatch):
    monkeypatch.setattr(status, "EVERY", 1)  # time enough to press a button before the page is another one
    progress, path = status.Progress({1: status.Job("train", "s", "m")}, 0.0), tmp_path / "status.html"

    def write(now):
        files.write_text(path, status.page(progress, "s", now, f"at {now}"))  # whole, as the workflow writes it

    write(1.0)
    page.goto(path.as_uri())
    write(2.0)
    page.get_by_text("at 2.0").wait_for(timeout=20_000)
    page.get_by_role("button", name="Pause").click()
    write(3.0)
    page.wait_for_timeout(3000)
    assert page.get_by_text("at 2.0").count() == 1
    page.get_by_role("button", name="Go on").click()
    page.get_by_text("at 3.0").wait_for(timeout=20_000)
    progress.end = "finished"
    write(4.0)
    page.get_by_text("at 4.0").wait_for(timeout=20_000)
    assert page.get_by_role("button").count() == 0
