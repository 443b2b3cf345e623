"""Clones of the repository in which tests really run Snakemake."""

import pytest
from clones import Clone


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    return lambda: Clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def built(small_study, tmp_path_factory):
    """A copy of the small study, with which a module may do as it likes."""
    return small_study.copy(tmp_path_factory.mktemp("built") / "clone")
