"""Every environment holds what the lock holds, and nothing else; set-up picks a Python that works."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

SCRIPT = Path("envs/augbench.post-deploy.sh")
OWN = {"augbench", "pip", "pillow-heif"}  # itself, what venv brings, and the one extra that users may add


def pins() -> dict[str, str]:
    """Name -> version that the lock has for the running Python."""
    text = Path("requirements.lock").read_text().replace("\\\n", " ")
    rows = [Requirement(line.partition(" --hash")[0]) for line in text.splitlines()]
    assert len(rows) > 100
    chosen = [row for row in rows if not row.marker or row.marker.evaluate()]
    assert len({row.name for row in chosen}) == len(chosen)
    return {canonicalize_name(row.name): str(row.specifier)[2:] for row in chosen}


def test_this_environment_holds_the_locks_versions_and_no_others():
    # Not sys.path: setuptools adds what it brings along to it once pkg_resources is imported.
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    held = {canonicalize_name(each.name): each.version for each in importlib.metadata.distributions(path=folders)}
    assert {name: version for name, version in held.items() if name not in OWN} == pins()


def test_conda_gets_python_and_uv_which_installs_the_lock(tmp_path):
    environment = yaml.safe_load(SCRIPT.with_name("augbench.yaml").read_text())
    python, uv = environment["dependencies"]
    assert uv == "uv"
    # As Snakemake runs it: a copy, in another folder.
    (tmp_path / "copy.sh").write_text(SCRIPT.read_text())
    (tmp_path / "uv").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$CONDA_PREFIX/asked"\n')
    (tmp_path / "uv").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CONDA_PREFIX": str(tmp_path)}
    subprocess.run(["sh", str(tmp_path / "copy.sh")], env=environment, cwd=tmp_path, check=True)
    lock = tmp_path / "requirements.lock"
    assert lock.read_bytes() == Path("requirements.lock").read_bytes()
    asked = (tmp_path / "asked").read_text().split("\n")
    assert asked[:2] == ["pip", "sync"]
    assert {f"{tmp_path}/bin/python", "--require-hashes", str(lock)} <= set(asked)
    container = re.search(r"^FROM python:(3\.\d+)-", Path("envs/Containerfile").read_text(), re.M)[1]
    assert python == f"python={container}"
    assert "make -C /augbench setup" in Path("envs/Containerfile").read_text()


def test_no_index_is_named():
    for name in ("requirements.lock", str(SCRIPT), "envs/augbench.yaml", "envs/Containerfile", "pyproject.toml"):
        assert not re.search(r"https?://|--index|--find-links", Path(name).read_text())


def test_the_lock_is_hashed_and_meets_the_requirements_and_the_overrides():
    project = tomllib.loads(Path("pyproject.toml").read_text())
    locked = pins()
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    for requirement in map(Requirement, wanted + project["tool"]["uv"]["override-dependencies"]):
        if not requirement.marker or requirement.marker.evaluate():
            version = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), requirement
    text = Path("requirements.lock").read_text().replace("\\\n", " ")
    assert all("--hash=sha256:" in line for line in text.splitlines())


def test_every_python_that_the_project_names_is_tried_by_the_makefile():
    allowed = SpecifierSet(tomllib.loads(Path("pyproject.toml").read_text())["project"]["requires-python"])
    named = {f"3.{minor}" for minor in range(8, 30) if allowed.contains(f"3.{minor}")}
    tried = re.search(r"^PYTHON \?= .*", Path("Makefile").read_text(), re.M)[0]
    assert set(re.findall(r"python(3\.\d+)", tried)) == named


# --- the Python of a set-up -----------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path):
    """A function that makes a program of a name, and one that runs make where only these programs are."""
    for name in ("make", "sh"):
        (tmp_path / name).symlink_to(shutil.which(name))

    def program(name: str, text: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    def make(*arguments: str):
        environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
        return subprocess.run(["make", *arguments], env=environment, capture_output=True, text=True)

    return program, make


@pytest.mark.middle
def test_shims_that_cannot_run_and_pythons_that_are_too_old_are_passed_over(machine):
    program, make = machine
    program("python3.13", "echo 'pyenv: python3.13: command not found'; exit 127")  # pyenv says so on either stream
    program("python3.12", "echo 'No module named ensurepip' >&2; exit 1")  # Debian without python3-venv
    program("python3", f'exec "{sys.executable}" "$@"')
    assert make("--eval=which: ; @:; echo '$(PYTHON)'", "which").stdout == "python3\n"


@pytest.mark.middle
@pytest.mark.parametrize("arguments", [[], ["PYTHON=python3.13"], ["PYTHON=/no/such/python"]])
def test_one_sentence_says_what_to_install(machine, tmp_path, arguments):
    program, make = machine
    program("python3.13", "exit 127")
    result = make("setup", f"VENV={tmp_path}/venv", *arguments)
    assert result.returncode == 2
    (sentence,) = result.stdout.splitlines()
    assert sentence.startswith("augbench needs Python 3.11 to 3.14")
    assert "apt install python3-venv" in sentence and "make PYTHON=" in sentence
    assert not (tmp_path / "venv").exists()
