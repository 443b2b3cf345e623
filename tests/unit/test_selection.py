"""Selection worked by hand."""

import pandas as pd
import pytest

from augbench import selection


def test_the_rate_with_the_lowest_validation_loss_is_kept(tmp_path):
    for name, losses in {"lr-1": [3, 1.5, 2], "lr-2": [2, 1.4, 9], "lr-4": [1.4, 5, 5]}.items():
        (tmp_path / name).mkdir()
        table = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": 0.1, "validation_loss": losses})
        table.to_csv(tmp_path / name / "history.csv", index=False)
    folders = [tmp_path / name for name in ("lr-1", "lr-2", "lr-4")]
    assert selection.rates(folders) == {"lr-1": 1.5, "lr-2": 1.4, "lr-4": 1.4}
    assert selection.best_rate(folders).name == "lr-2"  # the first of equals


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
