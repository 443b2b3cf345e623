import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from made_report import METHODS, files_of, make_results, plan, results
from PIL import Image

from augbench import images
from augbench.core import files
from augbench.images.thumbnails import decoded, encoded, thumbnail
from augbench.report import catalogue, study_page
from augbench.report.drawing import pdf, svg
from augbench.report.exhibits import accuracy, duplicates, exhibit, training
from augbench.report.exhibits import images as galleries
from augbench.report.plan import FIGURE_FILES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results") / "digits")


@pytest.fixture(scope="module")
def gathered(folder):
    return study_page.gather(results(folder, plan()))


@pytest.fixture(scope="module")
def written(folder, gathered):
    """The folder of figures, with stand-ins for the PDFs, which take longest; they are drawn from the same data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_page, "pdf", lambda drawing: b"%PDF")
        study_page.write_figures(folder / "figures", gathered)
    return folder / "figures"


@pytest.mark.middle  # takes seconds
def test_the_folder_of_figures_is_a_view_of_the_catalogue(written):
    names = catalogue.figures(plan())
    assert {"figure5a", "figure5b", "figure7", "funnel-retrieval"} <= set(names)
    assert {path.name for path in written.iterdir()} == {f"{name}.{kind}" for name in names for kind in FIGURE_FILES}


def test_every_exhibit_is_in_a_section_that_there_is():
    assert {exhibit.section for exhibit in catalogue.EXHIBITS} == {section.name for section in catalogue.SECTIONS}
    assert len({exhibit.name for exhibit in catalogue.EXHIBITS}) == len(catalogue.EXHIBITS)


@pytest.mark.middle  # takes seconds
def test_a_new_figure_is_one_entry(folder, tmp_path, monkeypatch):
    """It is drawn into the folder, shown and linked on the page, and known before any result is there."""
    entry = exhibit.Exhibit(
        name="epochs",
        section="curves",
        data=lambda results: [row | {"line": None} for row in results.summaries],
        draw=lambda rows: accuracy.accuracy_figure({"rows": rows}),
        table=lambda rows: pd.DataFrame(rows)[["method", "epochs"]],
        caption="How long <each> was trained.",
    )
    monkeypatch.setattr(catalogue, "EXHIBITS", [*catalogue.EXHIBITS, entry])
    monkeypatch.setattr(study_page, "EXHIBITS", catalogue.EXHIBITS)
    found = results(folder, plan())
    gathered = {"epochs": (entry, entry.data(found))}
    study_page.write_figures(tmp_path / "figures", gathered)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"epochs.svg", "epochs.pdf", "epochs.csv"}
    text = study_page.section(found, gathered, {})["html"]
    assert "How long &lt;each&gt; was trained." in text and '<a data-file="figures/epochs.svg">SVG</a>' in text
    assert text.count("<svg") == 1 and 'href="#digits-curves"' in text and 'href="#digits-gap"' not in text
    assert "epochs" in catalogue.figures(plan())


@pytest.mark.parametrize(
    ("methods", "scaled", "there", "missing"),
    [
        (["none"], [], {"figure1a", "accuracy", "training"}, {"differences", "figure4", "figure5a", "losses"}),
        (["clip_prompts"], ["clip_prompts"], {"figure4", "figure5b"}, {"figure5a", "figure7", "differences"}),
        (["clip_prompts", "retrieval"], [], {"differences"}, {"figure5a", "figure5b"}),
        (["clip_prompts", "ft"], [], {"figure7"}, {"differences"}),
        (["none", "more_real"], ["more_real"], {"differences"}, {"figure5b"}),
        (["none", "retrieval"], [], {"figure5a", "differences", "funnel-retrieval"}, {"figure5b", "figure7"}),
        (["none", "mine"], ["mine"], {"figure4", "figure5a", "figure5b"}, {"figure7"}),
        (["none", "more_real"], [], {"figure4"}, {"figure5a"}),
    ],
)
def test_which_figures_a_study_has_follows_from_its_configuration(methods, scaled, there, missing):
    scaling = {"methods": scaled, "ratios": [2.0]} if scaled else {}
    rows = METHODS | {"mine": {"title": "Mine", "family": "external", "start": "folder"}}
    names = set(catalogue.figures(plan({key: rows[key] for key in methods}, scaling=scaling)))
    assert there <= names and not missing & names
    boomerang = {"title": "Boomerang", "family": "unconditional", "start": "image"}
    assert "figure3" in catalogue.figures(plan({"boomerang": boomerang}, scaling={}))


@pytest.mark.middle  # takes seconds
@pytest.mark.parametrize("name", ["differences", "figure7"])  # lines and text; pictures
def test_a_pdf_is_whole_and_undated(gathered, name):
    figure, data = gathered[name]
    drawn = pdf(figure.draw(data))
    assert drawn.startswith(b"%PDF") and drawn.rstrip().endswith(b"%%EOF") and b"CreationDate" not in drawn
    assert (b"/Subtype /Image" in drawn) == (name == "figure7")


@pytest.mark.middle  # takes seconds
def test_figures_are_whole_and_safe(written):
    for path in written.glob("*.svg"):
        text = path.read_bytes()
        ET.fromstring(text)
        assert b"<dc:date>" not in text and b"<script" not in text
    for path in written.glob("*.csv"):
        assert len(pd.read_csv(path)), path
    table = pd.read_csv(written / "accuracy.csv")
    assert list(table) == ["method", "family", "accuracy_mean", "accuracy_se"]
    assert list(table["accuracy_mean"]) == [90.2, 98.1, 95.0, 96.0, 97.0]


@pytest.mark.slow
def test_figures_are_the_same_bytes_in_another_process(folder, gathered, tmp_path):
    """Hashes of strings differ between processes: nothing may depend on their order."""
    study_page.write_figures(tmp_path / "here" / "figures", gathered)
    code = (
        "import sys; from augbench.report import study_page; import made_report as made\n"
        "gathered = study_page.gather(made.results(sys.argv[1], made.plan()))\n"
        "study_page.write_figures(sys.argv[2] + '/figures', gathered)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, folder, tmp_path], env=environment, check=True)
    written = sorted((tmp_path / "here" / "figures").iterdir())
    assert len(written) == 3 * len(catalogue.figures(plan()))
    for file in written:
        assert (tmp_path / "figures" / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.fixture
def varied(tmp_path):
    """Two training images, grey 100 and 200, and variations of them, 10 brighter; of one its start is not known."""
    rows = {"train": [], "added": []}
    for name, values in (("train", [100, 200]), ("added", [210, 110, 110])):
        for i, value in enumerate(values):
            path = tmp_path / f"{name}-{i}.png"
            Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(path)
            start = {"start_image": ["train-1", "train-0", None][i]} if name == "added" else {}
            rows[name].append({"image_id": path.stem, "class": "a", "path": str(path)} | start)
    images.write(tmp_path / "dataset" / "train.parquet", images.table(rows["train"]))
    images.write(tmp_path / "augmentation" / "boomerang" / "x1" / "split-1.parquet", images.table(rows["added"]))
    classes = pd.DataFrame({"class": ["a", "b"], "lemmas": "", "train": [2, 1], "excluded": ""})
    files.write_csv(tmp_path / "dataset" / "classes.csv", classes)
    return tmp_path


def test_variations_stand_below_the_images_that_they_started_from(varied):
    """Which these are is a column, whatever the image is called and wherever it stands."""
    boomerang = {"title": "Boomerang", "family": "unconditional", "start": "image"}
    data = galleries.variations(results(varied, plan({"boomerang": boomerang}, scaling={})))
    assert [row["title"] for row in data["rows"]] == ["Training images", "Boomerang", "Difference"]
    values = [[np.asarray(decoded(thumb))[0, 0, 0] for thumb in row["cells"][0]] for row in data["rows"]]
    assert values == [[200, 100], [210, 110], [10, 10]]
    assert [row["cells"][1] for row in data["rows"]] == [[], [], []]  # of class b there are none
    assert [pair["mean_difference"] for pair in data["pairs"]] == [10, 10]
    assert [pair["original_id"] for pair in data["pairs"]] == ["train-1", "train-0"]


def test_thumbnails_keep_to_their_limit(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8))
    assert decoded(encoded(noise.copy(), 64)).size == (64, 43)
    hardest = noise.crop((0, 0, 64, 64))
    assert len(encoded(hardest.copy(), 64)["src"]) > 4000
    assert len(encoded(hardest.copy(), 64, 2000)["src"]) <= 2000 * 4 / 3 + 30
    noise.save(tmp_path / "a.png")
    row = images.table([{"image_id": "a", "class": "a", "path": str(tmp_path / "a.png")}]).iloc[0]
    assert decoded(thumbnail(row, "text")).size == (96, 64)


@pytest.mark.middle  # takes seconds
def test_leaked_candidates_are_those_of_the_test_split_closest_first(gathered, written):
    """Figures 8 and 9: the audit has twelve pairs per method with distances 0 to 11."""
    for name, methods in {"figure8": ["retrieval"], "figure9": ["clip_prompts", "ft"]}.items():
        table = pd.read_csv(written / f"{name}.csv")
        assert list(table["method"].unique()) == methods
        for _, rows in table.groupby("method"):
            assert list(rows["distance"]) == list(range(10))
            assert list(rows["place"]) == list(range(1, 11))
    (retrieval,) = gathered["figure8"][1]
    items = [retrieval | {"leaks": [], "title": "No leak"}, retrieval]
    assert "No leak" in svg(duplicates.leaks_figure(items)) and len(duplicates.leaks_table(items)) == 10


def test_a_row_of_figure13_is_an_epoch_and_a_column_a_class(folder, gathered, written):
    table = pd.read_csv(written / "figure13.csv")
    assert list(table["row"]) == ["epoch 1", "epoch 1", "epoch 2 (chosen)", "epoch 2 (chosen)"]
    (item,) = gathered["figure13"][1]
    assert list(table["class"]) == 2 * [row["class"] for row in item["classes"]]
    screened = images.read(files_of(folder, plan())["generated"]["ft"][0]).set_index("image_id")["candidate"]
    assert [screened[image][-1] for image in table["image_id"]] == ["1", "1", "2", "2"]


def test_a_budget_of_steps_is_said_and_its_curves_are_over_steps(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "digits")
    for path in (tmp_path / "digits" / "classifier").rglob("history.csv"):
        table = pd.read_csv(path).rename(columns={"epoch": "step"})
        table.assign(step=400 * table["step"]).to_csv(path, index=False)
    stepwise = plan(classifier={"budget": "steps", "steps": 4000})
    found = results(tmp_path / "digits", stepwise)
    rows = training.curves(found)
    assert rows[0]["runs"][0]["step"][0] == 400
    assert list(training.curves_table(rows)) == ["step", "accuracy", "method", "run"]
    assert "step" in svg(training.curve_figure(rows[0], training.limits(rows)), "x")
    (shown,) = [each for each in training.EXHIBITS if each.name == "training"]
    assert exhibit.text_for(shown.caption, rows) == "Validation accuracy over the steps, one line per run."
    caption = accuracy._table1_caption(accuracy.table1(found))
    assert "every method is trained for the same number of steps" in caption and "Early stopping" not in caption
    usual = accuracy._table1_caption(accuracy.table1(results(folder, plan())))
    assert "Early stopping on validation accuracy ends the training of every method." in usual
