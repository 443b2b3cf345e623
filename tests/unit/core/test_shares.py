import pytest

from augbench.core.shares import shares


def test_files_are_shared_among_methods_in_their_order():
    assert shares(["a", "b"], [1, 2, 3, 4]) == {"a": [1, 2], "b": [3, 4]}
    assert shares([1.0], []) == {1.0: []}
    with pytest.raises(ValueError, match="3 files cannot be shared equally among a, b"):
        shares(["a", "b"], [1, 2, 3])
