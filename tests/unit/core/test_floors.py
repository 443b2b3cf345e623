"""Imports go down only, and what a plan reads stays free of torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import augbench
from augbench.core import code_digest

PACKAGE = Path(augbench.__file__).parent
FLOORS = [
    {"core"},
    {"images"},
    {"study"},
    {"digits", "models"},
    {"dataset", "retrieval", "diffusion", "classifier", "audit"},
    {"report", "jobs"},
]
FLOOR = {package: number for number, packages in enumerate(FLOORS) for package in packages}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
PLANNED = [
    "study.config",
    "study.reference",
    "jobs.checks",
    "jobs.job_costs",
    "jobs.resources",
    "jobs.rules",
    "jobs.status",
    "jobs.study_files",
    "jobs.user_data",
    "core.resume",
]


def imports(path: Path, module_level: bool = False) -> set[str]:
    """Whole names of what a file imports, everywhere or at module level alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.iter_child_nodes(tree) if module_level else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_each_package_has_its_floor():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    package = path.relative_to(PACKAGE).parts[0]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "augbench" and parts[1] in FLOOR and parts[1] != package:
            assert FLOOR[parts[1]] < FLOOR[package], f"{package} imports {name}"


@pytest.mark.middle
def test_planning_and_configuration_need_no_torch():
    code = f"import sys, importlib\nfor name in {PLANNED}: importlib.import_module('augbench.' + name)\n"
    code += "print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


# The scripts of a study that adds nothing but images made elsewhere.
WITHOUT_MODELS = (
    "split_target dataset run_script list_added resample unite classify hash_images audit review judge domain_gap "
    "summary tables per_class study_page report_page export list_references"
)


@pytest.mark.parametrize("script", WITHOUT_MODELS.split())
def test_a_study_of_images_made_elsewhere_brings_no_diffusion_model_and_no_clip(script):
    modules = code_digest.modules_of(PACKAGE.parents[1] / "workflow" / "scripts" / f"{script}.py")
    named = {name.partition(".")[0] for path in modules if path.suffix == ".py" for name in imports(path)}
    assert modules and not named & {"diffusers", "clip_retrieval", "open_clip"}


@pytest.mark.middle
def test_the_library_is_imported_from_any_folder(tmp_path):
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES]
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
