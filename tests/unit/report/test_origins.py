"""Where the report says that added images come from, and what it says was not checked."""

import made_report as made
import pytest

from augbench import images
from augbench.report.exhibits.origins import origins
from augbench.report.plan import Plan
from augbench.report.study_page import gather

EXTERNAL = {"mine": {"title": f"Mine {made.EVIL}", "family": "external", "start": "folder"}}
ROWS = [("a", "SDXL", "CC0"), ("a", "FLUX", None), ("a", "SDXL", "CC0"), (made.EVIL, None, None), ("gone", None, None)]


@pytest.fixture
def results(tmp_path):
    """Two classes of five training images each, of which one has three images made elsewhere and one has one."""
    folder = made.make_results(tmp_path / "results")
    rows = [
        {"image_id": f"mine/{i}", "class": key, "path": "x.png", "model": model, "licence": licence}
        for i, (key, model, licence) in enumerate(ROWS)
    ]
    images.write(folder / "mine.parquet", images.table(rows))

    def of(**settings):
        plan = made.plan(made.METHODS | EXTERNAL, **settings)
        return made.results(folder, plan, external={"mine": f"{folder}/mine.parquet"})

    return of


def rows(results) -> dict:
    data = origins(results)
    return {row["method"]: (row["checked"], row["short"]) for row in data["rows"]}, data["unchecked"]


def test_which_images_were_checked_follows_from_the_section_safety(results):
    own, unchecked = rows(results(added={"mine": "data/mine"}))
    assert own["clip_prompts"] == own["retrieval"] == ("the backbone's own checker", "")
    assert "none" not in own and "more_real" not in own and own["mine"][0] == "" and len(unchecked) == 1
    named, _ = rows(results(added={"mine": "data/mine"}, safety={"model": "owner/checker"}))
    assert named["retrieval"] == ("owner/checker", "")
    none, unchecked = rows(results(added={"mine": "data/mine"}, safety={"model": "none"}))
    assert {checked for checked, _ in none.values()} == {""} and len(unchecked) == len(none)


def test_makers_licences_and_classes_that_are_short_are_named(results):
    of = results(added={"mine": "data/mine"})
    row = next(row for row in origins(of)["rows"] if row["method"] == "mine")
    assert row["origin"] == "5 images made elsewhere by FLUX, SDXL (licence: CC0), data/mine"
    assert row["short"].startswith("2 of 2 classes have fewer images than ratio 1 asks for (ay: 3 of 5, ")
    half = results(added={"mine": {"script": "x.py"}}, ratios=[0.2])
    row = next(row for row in origins(half)["rows"] if row["method"] == "mine")
    assert row["origin"].endswith(", x.py") and row["short"] == ""


def test_the_model_that_generated_images_and_its_licence_are_named(results):
    of = results(added={"mine": "data/mine"})
    (path,) = of.files.generated["clip_prompts"]
    images.write(path, images.read(path).assign(model="owner/sdxl@0123", licence="openrail++"))
    rows_of = {row["method"]: row["origin"] for row in origins(of)["rows"]}
    assert rows_of["clip_prompts"] == "the diffusion model denoises noise, by owner/sdxl@0123 (licence: openrail++)"
    assert rows_of["simple_prompt" if "simple_prompt" in rows_of else "retrieval"].endswith(("noise", "pool"))


def test_a_union_says_whose_images_it_adds_and_by_what_each_was_checked(results, tmp_path):
    union = {"title": "Both", "family": "union", "start": "methods", "of": {"retrieval": 0.4, "mine": 0.6}}
    methods = {name: made.METHODS[name] for name in ("none", "clip_prompts")} | {"both": union}
    of = results(added={"mine": "data/mine"})
    settings = made.plan(made.METHODS, added={"mine": "data/mine"}).settings.model_dump()
    settings |= {"methods": list(methods), "scaling": {}}
    plan = Plan.of_rows("digits", settings, methods | {"retrieval": made.METHODS["retrieval"]} | EXTERNAL)
    assert list(plan.methods) == list(methods) and plan.in_unions == ["retrieval", "mine"]
    taken = ["retrieval", "retrieval", "mine", "mine"]
    table = images.table({"image_id": f"{i}", "class": "a", "path": "x", "method": m} for i, m in enumerate(taken))
    images.write(tmp_path / "both.parquet", table)
    added = {"both": f"{tmp_path}/both.parquet"}
    data = origins(made.results(of.folder, plan, added=added, external=of.files.external))
    rows = {row["method"]: row for row in data["rows"]}
    assert list(rows) == ["clip_prompts", "both", "retrieval", "mine"]
    assert {row["family"] for row in data["rows"]} <= set(plan.colours)  # as the page draws them
    title = EXTERNAL["mine"]["title"]
    assert rows["both"]["origin"] == f"a union of 4 images a run: 2 of Retrieval, 2 of {title}"
    assert rows["both"]["checked"] == f"the backbone's own checker; not checked: {title}"
    assert rows["both"]["short"].startswith("2 of 2 classes have fewer images") and data["unchecked"] == [title]


def test_a_study_that_adds_no_such_images_has_no_table(tmp_path):
    folder = made.make_results(tmp_path / "results")
    methods = {key: made.METHODS[key] for key in ("none", "more_real")}
    assert "origins" not in gather(made.results(folder, made.plan(methods)))
