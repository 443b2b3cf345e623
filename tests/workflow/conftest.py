"""Clones of the repository in which tests really run Snakemake."""

import os

import pytest
from clones import Clone
from shared import locked


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    return lambda: Clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="session")
def small_study(tmp_path_factory):
    """A clone in which the small study was built, once for all processes of the test run."""
    run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    with locked(run / "small_study.lock"):
        built = Clone(run / "small_study")
        if not (built.folder / "results" / "report.html").exists():
            code, output = built.snakemake("--cores", "2")
            assert code == 0, output
    return built


@pytest.fixture(scope="module")
def built(small_study, tmp_path_factory):
    """A copy of that clone, with which a module may do as it likes."""
    return small_study.copy(tmp_path_factory.mktemp("built") / "clone")
