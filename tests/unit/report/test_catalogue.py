import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_report import METHODS, SETTINGS, generated, make_results
from PIL import Image

from augbench import images
from augbench.images.thumbnails import decoded, encoded, thumbnail
from augbench.report import catalogue, galleries, page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results") / "digits")


@pytest.fixture(scope="module")
def study(folder):
    return page.gather("digits", folder, METHODS, SETTINGS, generated(folder))


@pytest.fixture(scope="module")
def written(folder, study):
    catalogue.write(study, folder)
    return folder / "figures"


def test_what_is_declared_is_written(study, written):
    declared = catalogue.names(METHODS, {key: [1, 4] if key in ("retrieval", "ft") else [1] for key in METHODS})
    assert {"figure5a", "figure5b", "figure7", "funnel-retrieval"} <= set(declared)
    assert {path.name for path in written.iterdir()} == {
        f"{name}.{kind}" for name in declared for kind in catalogue.KINDS
    }


@pytest.mark.parametrize(
    ("methods", "ratios", "there", "missing"),
    [
        (["none"], [1], {"figure1a", "accuracy", "training"}, {"differences", "figure4", "figure5a", "losses"}),
        (["clip_prompts"], [1, 2], {"figure4", "figure5b"}, {"figure5a", "figure7", "differences"}),
        (["clip_prompts", "retrieval"], [1], {"differences"}, {"figure5a", "figure5b"}),
        (["clip_prompts", "ft"], [1], {"figure7"}, {"differences"}),
        (["none", "more_real"], [1, 2], {"differences"}, {"figure5b"}),
        (["none", "retrieval"], [1], {"figure5a", "differences", "funnel-retrieval"}, {"figure5b", "figure7"}),
    ],
)
def test_which_figures_a_study_has(methods, ratios, there, missing):
    names = set(catalogue.names({key: METHODS[key] for key in methods}, dict.fromkeys(methods, ratios)))
    assert there <= names and not missing & names
    assert "figure3" in catalogue.names({"boomerang": {"start": "image"}}, {"boomerang": [1]})


def test_figures_are_whole_and_safe(written):
    for path in written.glob("*.svg"):
        text = path.read_bytes()
        ET.fromstring(text)
        assert b"<dc:date>" not in text and b"<script" not in text
    for path in written.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF") and b"CreationDate" not in path.read_bytes()
    for path in written.glob("*.csv"):
        assert len(pd.read_csv(path)), path
    table = pd.read_csv(written / "accuracy.csv")
    assert list(table) == ["method", "family", "accuracy_mean", "accuracy_se"]
    assert list(table["accuracy_mean"]) == [90.2, 98.1, 95.0, 97.0, 96.0]


@pytest.mark.slow
def test_figures_are_the_same_bytes_in_another_process(folder, written, tmp_path):
    """Hashes of strings differ between processes: nothing may depend on their order."""
    code = (
        "import sys; from pathlib import Path\n"
        "from augbench.report import catalogue, page; import made_report as made\n"
        "folder = Path(sys.argv[1]); tables = made.generated(folder)\n"
        "catalogue.write(page.gather('digits', folder, made.METHODS, made.SETTINGS, tables), sys.argv[2])"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, folder, tmp_path], env=environment, check=True)
    for file in written.iterdir():
        assert (tmp_path / "figures" / file.name).read_bytes() == file.read_bytes(), file.name


def _sets(folder):
    """Two training images, grey 100 and 200, and three variations, 10 brighter than their start images."""
    rows = {"train": [], "added": []}
    for name, values in (("train", [100, 200]), ("added", [110, 210, 110])):
        for i, value in enumerate(values):
            path = folder / f"{name}-{i}.png"
            Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(path)
            number = [0, 3, 2][i]  # start images 0, 1 and 0 of the two
            rows[name].append({"image_id": f"boomerang/base/a-{number:05d}", "class": "a", "path": str(path)})
    images.write(
        folder / "dataset" / "train.parquet", images.table(row | {"image_id": row["path"]} for row in rows["train"])
    )
    images.write(folder / "augmentation" / "boomerang" / "x1" / "split-1.parquet", images.table(rows["added"]))
    summary = {"method": "boomerang", "title": "Boomerang", "family": "unconditional"}
    return galleries.Sets(folder, [summary], "x1"), summary


def test_variations_stand_below_the_images_they_started_from(tmp_path):
    sets, summary = _sets(tmp_path)
    found = galleries.variations(sets, summary, [{"class": "a", "name": "a"}], "image")
    assert [row["title"] for row in found["rows"]] == ["Training images", "Boomerang", "Difference"]
    values = [[np.asarray(decoded(thumb))[0, 0, 0] for thumb in row["cells"][0]] for row in found["rows"]]
    assert values == [[100, 200], [110, 210], [10, 10]]
    assert [pair["mean_difference"] for pair in found["pairs"]] == [10, 10]
    assert [pair["original_id"][-11:] for pair in found["pairs"]] == ["train-0.png", "train-1.png"]
    assert galleries.variations(sets, summary, [{"class": "a", "name": "a"}], "noise") is None
    nothing = galleries.variations(sets, summary, [{"class": "b", "name": "b"}], "image")
    assert (nothing["pairs"], nothing["rows"][0]["cells"]) == ([], [[]])


def test_thumbnails_keep_to_their_limit(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8))
    assert decoded(encoded(noise.copy(), 64)).size == (64, 43)
    hardest = noise.crop((0, 0, 64, 64))
    assert len(encoded(hardest.copy(), 64)["src"]) > 4000
    assert len(encoded(hardest.copy(), 64, 2000)["src"]) <= 2000 * 4 / 3 + 30
    noise.save(tmp_path / "a.png")
    row = images.table([{"image_id": "a", "class": "a", "path": str(tmp_path / "a.png")}]).iloc[0]
    assert decoded(thumbnail(row, "text")).size == (96, 64)


def test_leaked_candidates_are_those_of_the_test_split_closest_first(study, written):
    """Figures 8 and 9: ``_audit`` plants twelve pairs per method with distances 0 to 11."""
    for name, methods in {"figure8": ["retrieval"], "figure9": ["clip_prompts", "ft"]}.items():
        table = pd.read_csv(written / f"{name}.csv")
        assert list(table["method"].unique()) == methods
        for _, rows in table.groupby("method"):
            assert list(rows["distance"]) == list(range(10))
            assert list(rows["place"]) == list(range(1, 11))
    retrieval = next(item for item in study["audit"] if item["method"] == "retrieval")
    clean = retrieval | {"leaks": [], "title": "No leak"}
    drawing, table = catalogue.drawings(study | {"audit": [clean, retrieval]})["figure8"]
    assert "No leak" in catalogue.svg(drawing) and len(table) == 10


def test_a_row_of_figure13_is_an_epoch_and_a_column_a_class(study, written):
    table = pd.read_csv(written / "figure13.csv")
    assert list(table["row"]) == ["epoch 1", "epoch 1", "epoch 2 (chosen)", "epoch 2 (chosen)"]
    assert list(table["class"]) == 2 * [about["class"] for about in study["finetuned"][0]["classes"]]
    made = images.read(generated(Path(study["folder"]))["ft"][0]).set_index("image_id")["candidate"]
    assert [made[image][-1] for image in table["image_id"]] == ["1", "1", "2", "2"]
