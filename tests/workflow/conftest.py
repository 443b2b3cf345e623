"""Clones of the repository in which tests really run Snakemake."""

import pytest
from clones import Clone


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    return lambda: Clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="session")
def built(clone):
    """A clone in which the small study was built; tests that edit it put it back."""
    made = clone()
    code, output = made.snakemake("results/report.html", "--cores", "2")
    assert code == 0, output
    return made
