"""An edit of any file of the library changes the digests of the rules whose scripts import it, and of no others.

What a script imports is found here with the standard library's ``modulefinder``, which reads bytecode, and not with the
code that makes the digests.
"""

import functools
import re
import shutil
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

from augbench.core import code_digest

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "src"
SCRIPTS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))
WITHOUT_RESULTS = ("core.progress", "jobs.gpus", "jobs.logs")  # of a job's log, its GPUs and its progress


class Finder(ModuleFinder):
    """Looks at augbench alone."""

    def __init__(self):
        super().__init__([str(SOURCES)], excludes=[f"augbench.{name}" for name in WITHOUT_RESULTS])

    def import_hook(self, name, caller=None, fromlist=None, level=-1):
        if name and name.partition(".")[0] != "augbench":
            return None
        return super().import_hook(name, caller, fromlist, level)


@functools.cache
def imported(script: Path) -> set[str]:
    """Files of the library that a script imports, relative to the package."""
    finder = Finder()
    finder.run_script(str(script))
    files = {Path(module.__file__) for module in finder.modules.values() if module.__file__}
    return {str(file.relative_to(SOURCES / "augbench")) for file in files if file.is_relative_to(SOURCES)}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the library whose files can be edited."""
    folder = tmp_path_factory.mktemp("library") / "augbench"
    shutil.copytree(SOURCES / "augbench", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def rerun(package):
    """A function: an edit of a file of the copy -> the scripts whose digests it changes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_digest, "PACKAGE", package)
        yield _rerun(package)


def _rerun(package):
    before = {script: code_digest.digest(script) for script in SCRIPTS}

    def rerun(name: str) -> set[str]:
        file = package / name
        text = file.read_bytes()
        file.write_bytes(text + b"\n# an edit\n")
        code_digest._line.cache_clear()
        try:
            return {script.name for script in SCRIPTS if code_digest.digest(script) != before[script]}
        finally:
            file.write_bytes(text)
            code_digest._line.cache_clear()

    return rerun


def names(folder: str, pattern: str) -> list[str]:
    package = SOURCES / "augbench"
    return [str(file.relative_to(package)) for file in sorted((package / folder).rglob(pattern))]


@pytest.mark.middle  # takes seconds
def test_an_edit_of_a_module_re_runs_what_imports_it_and_nothing_else(rerun):
    wrong = {}
    for module in names(".", "*.py"):
        users = {script.name for script in SCRIPTS if module in imported(script)}
        if (said := rerun(module)) != users:
            wrong[module] = {"missed": users - said, "needless": said - users}
    assert not wrong


def test_the_finder_sees_the_imports_of_scripts_and_functions():
    """Some of what is known: or both could be blind in the same way."""
    names = ("split_target", "classify", "generate")
    imports = {script.stem: imported(script) for script in SCRIPTS if script.stem in names}
    assert {"images/table.py", "core/seeds.py", "dataset/splits.py"} <= imports["split_target"]
    assert {"classifier/training.py", "jobs/launching.py"} <= imports["classify"]
    assert "diffusion/sampling.py" in imports["generate"] and "diffusion/sampling.py" not in imports["classify"]
    assert all("__init__.py" in files and "jobs/logs.py" not in files for files in imports.values())


@pytest.mark.parametrize("template", names("templates", "*.j2"))
def test_an_edit_of_a_pages_template_re_runs_what_writes_the_page(rerun, template):
    """Or nothing, if it is of the status page, which no job writes."""
    both = {"report_page.py", "study_page.py"}
    writers = {"review.html.j2": {"review.py"}, "status.html.j2": set(), "page.html.j2": both, "answer.html.j2": both}
    assert rerun(template) == writers.get(Path(template).name, {"study_page.py"})


def test_an_edit_of_a_table_of_the_package_re_runs_what_reads_it(rerun):
    """Templates of prompts are not among these: each method has a digest of its own. The paper's figures are inputs."""
    assert "split_target.py" in rerun("resources/imagenet_synsets.csv")
    assert not rerun("resources/paper_results.csv") and not rerun("resources/paper_compute.csv")


def test_every_script_belongs_to_a_rule_and_the_other_way_round():
    texts = "".join(file.read_text() for file in (ROOT / "workflow" / "rules").glob("*.smk"))
    assert set(re.findall(r"\.\./scripts/(\w+\.py)", texts)) == {script.name for script in SCRIPTS}
