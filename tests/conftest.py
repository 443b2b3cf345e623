"""Two processes test: one the library, one the workflow, whose small study is then built once."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.parent.name))
