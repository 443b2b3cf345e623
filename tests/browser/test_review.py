"""The review page, used by keyboard in a real browser, and what becomes of its verdicts."""

import pandas as pd
import pytest
from PIL import Image

from augbench.audit import review, verdicts

pytestmark = pytest.mark.slow

EVIL = (
    """<script>document.title = 'evil'</script><img src=x onerror="document.title='evil'"> "quoted", it's & </script>"""
)
WIDTHS = (360, 1440)


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    """Twelve pairs of coloured pictures, closest first, with hostile names."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = []
    for i in range(12):
        paths = [folder / f"{side}-{i}.jpg" for side in ("added", "reference")]
        for side, path in enumerate(paths):
            picture = Image.linear_gradient("L").resize((300 + 40 * side, 200)).rotate(25 * i + 2 * side)
            Image.merge("RGB", [picture, picture.transpose(0), picture.transpose(1)]).save(path)
        rows.append(
            {
                "added_id": f"added {i} {EVIL}", "class": f"class {EVIL}",
                "reference_set": "test" if i < 9 else "more, sets",
                "reference_id": f"reference {i // 2}", "reference_class": EVIL, "distance": i % 10 if i < 10 else 9,
                "similarity": 0.97 if i % 2 else None, "found_by": "both",
                "added_path": str(paths[0]), "added_offset": pd.NA, "added_length": pd.NA,
                "reference_path": str(paths[1]), "reference_offset": pd.NA, "reference_length": pd.NA,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def written(folder, candidates, size=500, **given):
    path = folder / "review.html"
    facts = {"study": EVIL, "method": "method", "title": EVIL, "size": size, "in_full": [], "seed": 1} | given
    review.write(path, candidates, **facts)
    return path


def judged(page):
    return page.locator("#count").text_content()


def test_ten_pairs_judged_by_keyboard(page, serious, candidates, tmp_path):
    path = written(tmp_path, candidates)
    page.goto(path.as_uri())
    assert judged(page) == "0 of 12 judged"
    assert page.locator("#undo").is_disabled()
    for key in "dnud":
        page.keyboard.press(key)
    assert judged(page) == "4 of 12 judged"
    page.keyboard.press("z")  # the fourth was no duplicate
    assert judged(page) == "3 of 12 judged"
    assert "Undone: pair 4." in page.locator("#status").text_content()
    page.keyboard.press("n")
    page.wait_for_timeout(500)  # a person's time: the browser stores what a page keeps in the background
    page.reload()
    assert judged(page) == "4 of 12 judged"
    assert page.locator("#about").text_content().startswith("Pair 5 of 12")
    for key in "dnnnnn":
        page.keyboard.press(key)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#about").text_content().startswith("Pair 9 of 12")
    assert page.locator("[data-verdict=not]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("d")  # changed one's mind
    page.keyboard.press("ArrowRight")
    assert judged(page) == "10 of 12 judged"
    assert serious(page) == []
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "verdicts.csv"
    saved = tmp_path / "verdicts.csv"
    download.value.save_as(saved)
    table = verdicts.read(saved, candidates)
    shown = verdicts.sample(candidates, 500, [], 1, "method")
    words = ["duplicate", "not", "unsure", "not", "duplicate", "not", "not", "not", "duplicate", "not"]
    assert table["verdict"].to_list() == words
    assert table["added_id"].to_list() == shown["added_id"].to_list()[:10]
    found = verdicts.summarise(candidates, table, {"test": 50, "more, sets": 5}, 500, [], 1, "method")
    duplicates = shown.iloc[[0, 4, 8]]
    for name, images in (("test", 50), ("more, sets", 5)):
        mine = duplicates[duplicates["reference_set"] == name]
        assert found[name]["duplicates"] == len(mine)
        assert found[name]["drop"] == pytest.approx(100 * mine["reference_id"].nunique() / images)
    assert [found[name]["state"] for name in ("test", "more, sets")] == ["all", "part"]  # two pairs are not judged
    assert found["more, sets"]["estimate"] is None
    # The rest, in the same browser; then everything is known.
    page.goto(path.as_uri())
    page.keyboard.press("n")
    page.keyboard.press("u")
    assert judged(page) == "12 of 12 judged"
    assert "All are judged" in page.locator("#status").text_content()
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(saved)
    found = verdicts.summarise(
        candidates, verdicts.read(saved, candidates), {"test": 50, "more, sets": 5}, 500, [], 1, "method"
    )
    assert sum(each["duplicates"] for each in found.values()) == 3
    assert all(each["state"] == "all" and each["low"] == each["duplicates"] for each in found.values())


def test_buttons_do_what_keys_do(page, candidates, tmp_path):
    page.goto(written(tmp_path, candidates).as_uri())
    page.locator("[data-verdict=unsure]").click()
    page.locator("#next").click()
    page.locator("[data-verdict=duplicate]").click()
    assert judged(page) == "2 of 12 judged"
    page.locator("#undo").click()
    assert judged(page) == "1 of 12 judged"
    page.locator("#previous").focus()
    page.keyboard.press("Enter")
    assert page.locator("#about").text_content().startswith("Pair 2 of 12")


def test_other_pairs_do_not_inherit_verdicts(page, candidates, tmp_path):
    path = written(tmp_path, candidates)
    page.goto(path.as_uri())
    page.keyboard.press("d")
    written(tmp_path, candidates.iloc[1:])
    page.goto(path.as_uri())
    assert judged(page) == "0 of 11 judged"
    written(tmp_path, candidates, method="other")
    page.goto(path.as_uri())
    assert judged(page) == "0 of 12 judged"


def test_text_from_data_stays_text(page, candidates, tmp_path):
    page.goto(written(tmp_path, candidates).as_uri())
    assert page.locator("h1").text_content() == f"{EVIL}: are these duplicates?"
    assert page.locator("#added-text").text_content() == f"added 0 {EVIL}, class class {EVIL}"
    assert "evil" not in page.title().replace(EVIL, "")
    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_a_desk(page, serious, candidates, tmp_path, scheme):
    calm = candidates.assign(added_id="retrieval/shark/000017", reference_id="shark/0081.jpg")
    calm["reference_id"] += calm.index.astype(str)
    calm = calm.assign(**{"class": "shark", "reference_class": "shark"})
    page.emulate_media(color_scheme=scheme)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        for name, table, study in (("calm", calm, "digits"), ("evil", candidates, EVIL), ("empty", calm[:0], "digits")):
            page.goto(written(tmp_path, table, size=10, study=study, title="Retrieval").as_uri())
            if len(table):
                page.keyboard.press("d")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert serious(page) == []
            page.screenshot(path=tmp_path / f"{name}-{scheme}-{width}.png", full_page=True)


def test_pictures_are_bounded_and_a_lost_one_is_told(page, candidates, tmp_path):
    table = candidates.copy()
    table.loc[0, "added_path"] = str(tmp_path / "gone.jpg")
    path = written(tmp_path, table)
    page.goto(path.as_uri())
    assert page.locator("#added").text_content() == "cannot be read"
    assert max(page.locator("#reference img").evaluate("i => [i.naturalWidth, i.naturalHeight]")) == 192
    assert path.stat().st_size < 12 * 2 * 20_000
