"""Selection worked by hand."""

import json
import math

import pandas as pd
import pytest

from augbench.diffusion import selection
from augbench.diffusion.candidates import history_file


def test_the_rate_with_the_lowest_validation_loss_is_kept(tmp_path):
    for name, losses in {"lr-1": [3, 1.5, 2], "lr-2": [2, 1.4, 9], "lr-4": [1.4, 5, 5]}.items():
        table = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": 0.1, "validation_loss": losses})
        table.to_csv(history_file(tmp_path / name), index=False)
    folders = [tmp_path / name for name in ("lr-1", "lr-2", "lr-4")]
    assert selection.rates(folders) == {"lr-1": 1.5, "lr-2": 1.4, "lr-4": 1.4}
    assert selection.best_rate(folders).name == "lr-2"  # the first of equals


def fine_tuned(folder, losses):
    """The folder of a fine-tuning with these validation losses; infinite in the last epoch if it diverged."""
    folder.mkdir(parents=True)
    table = pd.DataFrame({"epoch": range(1, len(losses) + 1), "train_loss": losses, "validation_loss": losses})
    table.to_csv(history_file(folder), index=False)
    names = [] if math.inf in losses else ["best_validation"]
    best = pd.DataFrame({"candidate": names, "epoch": 1, "train_loss": 1.0, "validation_loss": min(losses)})
    best.to_csv(folder / "candidates.csv", index=False)
    return folder


def test_a_rate_that_diverges_is_not_kept_and_stops_no_other(tmp_path):
    """However good it was before; and of the rates that converge the best at an end of the grid is said to be there."""
    courses = {"lr-0.5": [3, 2.5], "lr-1": [2, 1.5], "lr-2": [1.0, math.inf], "lr-4": [math.inf]}
    folders = [fine_tuned(tmp_path / "imagic" / name, losses) for name, losses in courses.items()]
    wanted = {"rates": {"lr-0.5": 2.5, "lr-1": 1.5, "lr-2": None, "lr-4": None}, "edge": None}
    assert json.loads(json.dumps(selection.compare_rates(folders, [0.5, 1, 2, 4]), allow_nan=False)) == wanted
    assert [row["candidate"] for row in selection.candidates(folders)] == ["lr-1_best_validation"]
    with pytest.raises(
        ValueError, match=r"every learning rate of imagic diverges \(lr-2, lr-4\); write lower `finetune.l"
    ):
        selection.candidates(folders[2:])


@pytest.mark.parametrize(("losses", "edge"), [([1, 2, 3], "lowest"), ([2, 1, 3], None), ([3, 2, 1], "highest")])
def test_a_rate_at_the_edge_of_the_grid_is_told(tmp_path, losses, edge):
    folders = [fine_tuned(tmp_path / f"lr-{i}", [loss]) for i, loss in enumerate(losses)]
    assert selection.compare_rates(folders, [0.25, 1, 4])["edge"] == edge
    turned = {"lowest": "highest", "highest": "lowest", None: None}[edge]
    assert selection.compare_rates(folders, [4, 1, 0.25])["edge"] == turned  # whatever the order of the grid
    assert selection.compare_rates(folders[:1], [1])["edge"] is None  # a grid of one point has no edge


def test_candidates_of_one_epoch_are_one():
    names = ["best_train", "best_validation", "epoch-1", "epoch-2", "epoch-3"]
    table = pd.DataFrame({"candidate": names, "epoch": [7, 3, 1, 2, 3], "train_loss": 1.0, "validation_loss": 1.0})
    found = selection.distinct(table, "lr-0.5")
    assert [(row["candidate"], row["epoch"], row["names"]) for row in found] == [
        ("lr-0.5_best_train", 7, ["best_train"]),
        ("lr-0.5_best_validation", 3, ["best_validation", "epoch-3"]),
        ("lr-0.5_epoch-1", 1, ["epoch-1"]),
        ("lr-0.5_epoch-2", 2, ["epoch-2"]),
    ]
    assert found[1]["file"] == "lr-0.5/best_validation.safetensors"


def test_the_best_validation_accuracy_chooses():
    rows = [
        {"candidate": "a", "epoch": 5, "validation_loss": 1.0, "validation_accuracy": 80.0},
        {"candidate": "b", "epoch": 2, "validation_loss": 1.2, "validation_accuracy": 82.0},
        {"candidate": "c", "epoch": 1, "validation_loss": 1.1, "validation_accuracy": 82.0},
    ]
    chosen = selection.select(rows)
    assert chosen["candidate"] == "c"  # of equals the lower loss
    assert [row["epoch"] for row in chosen["screened"]] == [1, 2, 5]
    with pytest.raises(ValueError, match="no candidate"):
        selection.select([])


def test_a_selection_is_written_with_what_chose_the_rate(tmp_path):
    folders = [fine_tuned(tmp_path / name, [loss]) for name, loss in {"lr-1": 2, "lr-2": 1}.items()]
    row = {"epoch": 1, "validation_loss": 1.0}
    for part, (name, accuracy) in enumerate({"a": 70.0, "b": 90.0, "c": 80.0}.items()):
        (tmp_path / "lr-2" / f"{name}.safetensors").write_text(name)
        rows = [row | {"candidate": name, "validation_accuracy": accuracy, "file": f"lr-2/{name}.safetensors"}]
        (tmp_path / f"part-{part}.json").write_text(json.dumps(rows))
    parts = sorted(tmp_path.glob("part-*.json"))
    selection.write(tmp_path / "selection.json", tmp_path / "chosen.safetensors", parts, folders, grid=[1, 2])
    assert (tmp_path / "chosen.safetensors").read_text() == "b"
    chosen = json.loads((tmp_path / "selection.json").read_text())
    assert (chosen["candidate"], chosen["edge"], chosen["rates"]) == ("b", "highest", {"lr-1": 2.0, "lr-2": 1.0})
    assert [each["candidate"] for each in chosen["screened"]] == ["a", "b", "c"]
