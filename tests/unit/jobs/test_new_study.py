"""A new study's configuration says what is in the folder, is valid, and overwrites nothing."""

import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from augbench.jobs import new_study
from augbench.study import config


def make(root, counts, size=(300, 200), place=""):
    for key, count in counts.items():
        (root / place / key).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", size).save(root / place / key / f"{i}.png")
    return root


def study(path):
    raw = yaml.safe_load(Path("config/methods.yaml").read_text()) | yaml.safe_load(path.read_text())
    return config.parse(raw).studies[path.stem]


def test_it_says_what_there_is_and_what_it_costs(tmp_path):
    images = make(tmp_path / "da\n# ta", {"robin": 40, "blue: tit # x": 10})
    path = new_study.write(str(images), "birds", tmp_path / "config")
    text = path.read_text()
    assert "2 classes, 50 images to train on, no test set" in text
    assert "'robin' (40)" in text and "4.0 times smaller" in text
    assert "Shorter sides of 50 images: 200 pixels.\n" in text
    # 32 and 8 images to train on, three times as many generated; 867 hours are 390,000 images in the paper.
    assert "40 training images; each generating method makes 120 images, about 16 minutes of a T4" in text
    found = study(path)
    assert (found.classifier.model, found.classifier.image_size, found.classifier.batch_size) == ("resnet18", 224, 32)
    assert (found.dataset.train, found.dataset.validation, found.dataset.test) == (0.8, 0.1, 0.1)
    assert found.methods == ["none", "simple_prompt", "clip_prompts"] and found.drop_leaks


def test_small_images_get_a_small_network_and_a_test_set_is_used(tmp_path):
    images = make(tmp_path / "data", {"a": 6, "b": 6}, (32, 40), "train")
    make(images, {"a": 2, "b": 2}, (32, 40), "test")
    found = study(new_study.write(str(images), "tiny", tmp_path))
    assert (found.classifier.model, found.classifier.image_size) == ("small_cnn", 32)
    assert found.dataset.train + found.dataset.validation == 1


def test_sizes_and_the_schema_are_named(tmp_path):
    images = make(tmp_path / "data", {"a": 10, "b": 10})
    Image.new("RGB", (100, 50)).save(images / "a" / "0.png")
    text = new_study.write(str(images), "birds", tmp_path / "in" / "config").read_text()
    assert "# Each class has 10 of them.\n" in text
    assert "Shorter sides of 20 images: 50 to 200 pixels, 200 in the median." in text
    schema = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (tmp_path / "in" / "config" / schema).resolve() == Path("config/schema.json").resolve()


def test_what_is_printed_is_what_a_reader_of_the_file_sees_first(tmp_path, capsys, monkeypatch):
    images = make(tmp_path / "data", {"a": 10, "b": 10})
    monkeypatch.chdir(tmp_path)
    new_study.main([str(images), "birds"])
    assert capsys.readouterr().out.startswith("  snakemake --configfile config/birds.yaml -n")


def test_the_commented_lines_add_retrieval(tmp_path):
    path = new_study.write(str(make(tmp_path / "data", {"a": 10, "b": 10})), "birds", tmp_path)
    text = path.read_text().replace("    # clip:", "    clip:").replace("    # pool:", "    pool:")
    path.write_text(text.replace("      - clip_prompts\n", "      - clip_prompts\n      - retrieval\n"))
    assert study(path).pool.source.name == "index"


def test_mistakes_are_told_in_one_sentence(tmp_path, capsys):
    images = make(tmp_path / "data", {"a": 10, "b": 10})
    shutil.copytree(images, tmp_path / "scarce")
    for file in list((tmp_path / "scarce" / "a").iterdir())[:1]:
        file.unlink()
    (tmp_path / "empty").mkdir()
    for folder, name, sentence in [
        (tmp_path / "nowhere", "x", "there is no folder"),
        (tmp_path / "empty", "x", "has 0 classes; at least two are needed"),
        (tmp_path / "scarce", "x", "the class a of .* has 9 training images; at least 10 are needed"),
        (images, "../x", "may hold letters, digits"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            new_study.write(str(folder), name, tmp_path / "config")
    assert not (tmp_path / "config").exists()


def test_a_file_that_is_there_stays(tmp_path):
    images = make(tmp_path / "data", {"a": 10, "b": 10})
    (tmp_path / "birds.yaml").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        new_study.write(str(images), "birds", tmp_path)
    assert (tmp_path / "birds.yaml").read_text() == "mine"


def test_val_is_a_validation_set_but_for_imagenet(tmp_path):
    """Only WordNet's numbers as class names, or a flat val, are ImageNet, whose val is the test set of the paper."""
    birds = make(make(tmp_path / "birds", {"robin": 6, "tit": 6}, place="train"), {"robin": 2, "tit": 2}, place="val")
    text = new_study.write(str(birds), "birds", tmp_path).read_text()
    found = study(tmp_path / "birds.yaml")
    assert found.target.reader.name == "folder"
    assert "a validation set of its own" in text
    assert (found.dataset.train, found.dataset.test) == (0.8, 0.2)
    wnids = {"n01440764": 6, "n01443537": 6}
    numbered = make(make(tmp_path / "numbered", wnids, place="train"), wnids, place="val")
    assert study(new_study.write(str(numbered), "numbered", tmp_path)).target.reader.name == "imagenet"
    flat = make(tmp_path / "flat", {"robin": 6, "tit": 6}, place="train")
    (flat / "val").mkdir()
    with pytest.raises(ValueError, match="has no class folders: give `ground_truth`"):  # as ImageNet's reader says
        new_study.write(str(flat), "flat", tmp_path)


def test_what_a_plan_would_refuse_is_refused(tmp_path):
    """A class whose name leaves nothing for prompts."""
    images = make(tmp_path / "data", {"a": 10, "_": 10})
    with pytest.raises(config.ConfigError, match=r"^studies.birds.target: the class '_' leaves no name for prompts"):
        new_study.write(str(images), "birds", tmp_path)
    assert not (tmp_path / "birds.yaml").exists()
