"""Further test sets: their folders are read as the target's classes, whatever these are called there."""

import pandas as pd
import pytest
from PIL import Image

from augbench.dataset import evaluation_sets
from augbench.study.sections.evaluation import EvaluationSet


def class_rows(*rows) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["class", "lemmas", "excluded"])
    return table.assign(hypernyms="", definition="", train=3)


ANIMALS = class_rows(
    ("n01", "house cat, Felis catus", ""),
    ("n02", "crane", ""),
    ("n03", "crane, lifting device", ""),
    ("n04", "dog", "too few images"),
)


def make(root, *labels, count=1):
    for place, label in enumerate(labels):
        (root / label).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (2, 2), (place, i, 0)).save(root / label / f"{i}.png")
    return str(root)


def read(path, classes, naming, **more) -> dict[str, list[str]]:
    """Class -> its images, in the order of the table."""
    table = evaluation_sets.read(EvaluationSet(path=path, classes=naming, **more), classes, "stop")
    found: dict[str, list[str]] = {}
    for row in table.to_dict("records"):
        found.setdefault(row["class"], []).append(row["image_id"])
    return found


def test_folders_that_are_numbers_are_positions_in_the_order_of_numbers(tmp_path):
    """Sorted as text, 10 and 11 would come before 2."""
    path = make(tmp_path, *map(str, range(12)))
    wnids = class_rows(*((f"n{i:02}", f"thing {i}", "") for i in range(12)))
    found = read(path, wnids, "position")
    assert list(found.items()) == [(f"n{i:02}", [f"{i}/0.png"]) for i in range(12)]
    numbered = class_rows(*((key, key, "") for key in sorted(map(str, range(12)))))  # as a target's folders are listed
    assert list(numbered["class"])[:4] == ["0", "1", "10", "11"]
    for naming in ("position", "wnid", "name"):
        assert read(path, numbered, naming) == {str(i): [f"{i}/0.png"] for i in range(12)}


def test_positions_may_be_written_with_zeros_and_end_with_the_classes(tmp_path):
    found = read(make(tmp_path / "1", "0000", "0002"), ANIMALS, "position")
    assert found == {"n01": ["0000/0.png"], "n03": ["0002/0.png"]}
    with pytest.raises(ValueError, match="class '4', which the target does not have: .* its classes are 0 to 3"):
        read(make(tmp_path / "2", "4"), ANIMALS, "position")
    with pytest.raises(ValueError, match="class 'cat', which the target does not have: .* its classes are 0 to 3"):
        read(make(tmp_path / "3", "cat"), ANIMALS, "position")


def test_classes_by_any_of_their_names(tmp_path):
    found = read(make(tmp_path / "1", "Felis_Catus", "lifting-device", "n02"), ANIMALS, "name")
    assert found == {"n01": ["Felis_Catus/0.png"], "n02": ["n02/0.png"], "n03": ["lifting-device/0.png"]}
    with pytest.raises(ValueError, match="class 'crane', a name of n02 and n03: call it by one of these"):
        read(make(tmp_path / "2", "crane"), ANIMALS, "name")


def test_an_unknown_class_is_named_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"2 has the class 'hause cat', which the .* have, did you mean 'house cat'\?"):
        read(make(tmp_path / "2", "hause cat", "n02"), ANIMALS, "name")
    with pytest.raises(ValueError, match=r"has the class 'N01', which the target does not have, did you mean 'n01'\?"):
        read(make(tmp_path / "3", "N01"), ANIMALS, "wnid")
    with pytest.raises(ValueError, match=r"'zebra', which the target does not have \(its classes are n01, n02, n03, n"):
        read(make(tmp_path / "4", "zebra"), ANIMALS, "wnid")


def test_images_of_a_class_that_takes_no_part_are_left_out(tmp_path, capsys):
    assert list(read(make(tmp_path / "1", "n01", "n04", count=2), ANIMALS, "wnid")) == ["n01"]
    assert "left out: 2 images of n04, which takes no part in the study" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds no image of a class that takes part in the study"):
        read(make(tmp_path / "2", "n04"), ANIMALS, "wnid")


def test_of_a_list_with_splits_the_test_images_are_taken(tmp_path):
    make(tmp_path, "n01", "n02")
    (tmp_path / "all.csv").write_text("path,class,split\nn01/0.png,n01,test\nn02/0.png,n02,train\n")
    (tmp_path / "plain.csv").write_text("path,class\nn01/0.png,n01\nn02/0.png,n02\n")
    for name, expected in (("all", ["n01"]), ("plain", ["n01", "n02"])):
        assert list(read(str(tmp_path / f"{name}.csv"), ANIMALS, "wnid", reader="list")) == expected
