"""What each classifier of a job is trained on, and what is left of its states; nothing is trained here."""

import pandas as pd
import pytest

from augbench import images
from augbench.classifier import runs, training
from augbench.core.files import read_json, write_json
from augbench.core.seeds import derive
from augbench.study.sections.classifier import Classifier


class Launched:
    """Takes the place of the launcher: keeps the jobs, and writes a state and metrics as a training would."""

    def __init__(self):
        self.jobs = []

    def __call__(self, function, job, folder, *, threads):
        assert function is training.train
        assert threads == 3
        self.jobs.append(job)
        accuracy = float(len(job["train"]))
        write_json(f"{job['folder']}/metrics.json", {"best_validation_accuracy": accuracy})
        write_json(f"{job['folder']}/{training.STATE}", {})


def table(name, *classes, **columns):
    rows = [{"image_id": f"{name}/{i}", "class": key, "path": "x", **columns} for i, key in enumerate(classes)]
    return images.table(rows)


@pytest.fixture
def launched():
    return Launched()


@pytest.fixture
def trainer(launched):
    return runs.Trainer(Classifier(threads=3), 7.0, launched)


SETS = {name: table(name, "a", "b") for name in ("train", "validation", "test")}


def test_each_run_is_trained_on_its_own_added_images(tmp_path, trainer, launched):
    added = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    images.write(added[0], table("one", "a", "b"))
    images.write(added[1], table("two", "a"))  # retrieval could not fill b at this ratio
    folders = {4: tmp_path / "run-4", 5: tmp_path / "run-5"}
    runs.train_runs(trainer, SETS, ["a", "b"], added, folders, seed=11)
    first, second = launched.jobs
    assert list(first["train"]["image_id"]) == ["train/0", "train/1", "one/0", "one/1"]
    assert [list(job["classes"]) for job in launched.jobs] == [["a", "b"], ["a"]]
    assert list(second["train"]["image_id"]) == ["train/0", "two/0"]
    assert list(second["test"]["image_id"]) == ["test/0"]
    assert [job["seed"] for job in launched.jobs] == [derive(11, "classifier", run) for run in (4, 5)]
    assert first["settings"].threads == 3
    assert first["save_minutes"] == 7.0
    assert not any((folder / training.STATE).exists() for folder in folders.values())


def test_a_method_without_added_images_is_trained_on_the_target_alone(tmp_path, trainer, launched):
    runs.train_runs(trainer, SETS, ["a", "b"], [], {1: tmp_path}, seed=11)
    pd.testing.assert_frame_equal(launched.jobs[0]["train"], SETS["train"])


def test_candidates_are_compared_on_validation_images_by_their_own_images(tmp_path, trainer, launched):
    generated = pd.concat([table("g", "a", "a", candidate="x"), table("h", "b", candidate="y")], ignore_index=True)
    candidates = [{"candidate": "x", "rate": 1}, {"candidate": "y", "rate": 2}]
    sets = {"train": SETS["train"], "validation": SETS["validation"], "generated": generated}
    runs.compare_candidates(trainer, sets, ["a", "b"], candidates, tmp_path / "part.json", seed=11)
    assert [list(job["train"]["image_id"])[2:] for job in launched.jobs] == [["g/0", "g/1"], ["h/0"]]
    assert all(job["test"] is SETS["validation"] for job in launched.jobs)
    assert {job["seed"] for job in launched.jobs} == {derive(11, "classifier", 1)}
    accuracies = [{"validation_accuracy": 4.0}, {"validation_accuracy": 3.0}]
    assert read_json(tmp_path / "part.json") == [row | more for row, more in zip(candidates, accuracies, strict=True)]
    assert not (tmp_path / "x" / training.STATE).exists()
