"""The package's files are found from anywhere, and a user's own go before them."""

import subprocess
import sys
from pathlib import Path

import pytest

from augbench.core import package_data
from augbench.study import prompts
from augbench.study.methods import Method

ROW = {"title": "Mine", "family": "prompting", "start": "noise"}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder of the user's templates, in an otherwise empty working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "resources" / "templates"
    folder.mkdir(parents=True)
    return folder


def test_the_users_templates_go_before_the_packages(own):
    packages = prompts.templates("simple_prompt")
    (own / "simple_prompt.txt").write_text("a fax of a {n}\n")
    assert prompts.templates("simple_prompt") == ["a fax of a {n}"] != packages
    assert prompts.templates("clip_prompts")


def test_a_methods_own_templates_are_known_beside_the_packages(own):
    (own / "mine.txt").write_text("a {n}\n")
    assert Method(conditioning="mine", **ROW).conditioning == "mine"
    with pytest.raises(
        ValueError, match=r"there is no resources/templates/min.txt, did you mean 'mine'\?.*simple_prompt"
    ):
        Method(conditioning="min", **ROW)


def test_the_users_backgrounds_go_before_the_packages(own):
    (own.parent / "backgrounds.txt").write_text("on the moon\n")
    assert prompts.backgrounds() == ["on the moon"]


@pytest.mark.middle
def test_the_library_works_from_any_folder(tmp_path):
    code = (
        "from augbench.core import package_data\n"
        "from augbench.study import prompts\n"
        "from augbench.study.readers import imagenet\n"
        "assert imagenet.SYNSETS.is_file() and package_data.bundled('paper_compute.csv').is_file()\n"
        "assert prompts.templates('clip_prompts') and prompts.backgrounds()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


def test_package_data_holds_every_file():
    """What is not named in pyproject.toml is missing from an installed package."""
    import tomllib

    patterns = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["augbench"]
    package = package_data.BUNDLED.parent
    named = {file for pattern in patterns for file in package.glob(pattern) if file.is_file()}
    lying = {
        file
        for folder in ("resources", "templates")
        for file in (package / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert lying == named
