"""Each image of a target is opened once, and again when it changed."""

import os
from pathlib import Path

import pytest
from PIL import Image

from augbench import images
from augbench.core.files import BadInput
from augbench.dataset import verification
from augbench.dataset.verification import Verifier


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "data").mkdir()
    names = [tmp_path / "data" / f"{i}.png" for i in range(8)]
    for i, name in enumerate(names):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(name)
    return names


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that are decoded from here on."""
    names = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda data, name: names.append(Path(name).name) or decode(data, name))
    return names


@pytest.mark.parametrize("threads", [1, 4])
def test_what_has_not_changed_is_not_opened_again(paths, opened, tmp_path, threads):
    notes = tmp_path / "notes"
    assert Verifier(threads, notes).readable(paths, "stop", []) == paths
    assert sorted(opened) == [path.name for path in paths]
    opened.clear()
    assert Verifier(threads, notes).readable(paths, "stop", []) == paths
    assert opened == []
    os.utime(paths[3], ns=(1, 1))
    Image.new("RGB", (5, 5)).save(paths[5])
    Verifier(threads, notes).readable(paths, "stop", [])
    assert sorted(opened) == ["3.png", "5.png"]


def test_another_studys_notes_count(paths, opened, tmp_path):
    Verifier(1, tmp_path / "one").readable(paths, "stop", [])
    opened.clear()
    Verifier(1, tmp_path / "two", [tmp_path / "one", tmp_path / "none"]).readable(paths, "stop", [])
    assert opened == [] and not (tmp_path / "two").exists()


def test_a_killed_job_goes_on_also_after_half_a_note(paths, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "AT_A_TIME", 2)
    paths[5].write_bytes(b"broken")
    with pytest.raises(BadInput, match=r"5\.png.*; repair or remove it, or set `unreadable: skip`"):
        Verifier(1, tmp_path / "notes").readable(paths, "stop", [])
    with open(tmp_path / "notes", "ab") as file:
        file.write(b"half")
    Image.new("RGB", (4, 4)).save(paths[5])
    opened.clear()
    Verifier(1, tmp_path / "notes").readable(paths, "stop", [])
    assert opened == ["5.png", "6.png", "7.png"]
    opened.clear()
    Verifier(1, tmp_path / "notes").readable(paths, "stop", [])
    assert opened == []


def test_what_cannot_be_read_is_said_each_time(paths, tmp_path):
    paths[2].write_bytes(b"broken")
    for _ in range(2):
        messages = []
        good = Verifier(2, tmp_path / "notes").readable(paths, "skip", messages)
        assert good == paths[:2] + paths[3:] and len(messages) == 1 and "2.png" in messages[0]
