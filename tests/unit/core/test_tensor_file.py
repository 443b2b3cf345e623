"""Files of tensors against those that safetensors writes."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from augbench.core import tensor_file

TENSORS = {
    "b/weights": torch.arange(6.0).reshape(2, 3),
    "a": torch.tensor(1.5),
    "ä": torch.zeros(0, 3),
    "half": torch.arange(5).half(),
    "brain": torch.arange(5).bfloat16(),
    "double": torch.arange(3).double(),
    "numbers": torch.arange(4),
    "small": torch.arange(4, dtype=torch.int32),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "flags": torch.tensor([True, False]),
}


@pytest.mark.parametrize("metadata", [None, {"note": '{"é": 1}'}])
def test_the_bytes_are_those_of_safetensors(tmp_path, metadata):
    save_file(TENSORS, tmp_path / "theirs", metadata)
    tensor_file.write(tmp_path / "ours", TENSORS, metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_how_a_tensor_lies_in_memory_does_not_matter(tmp_path):
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    given = {
        "turned": TENSORS["b/weights"].t(),
        "last": image.to(memory_format=torch.channels_last),
        "part": image[..., 1],
    }
    tensor_file.write(tmp_path / "file", given)
    written = load_file(tmp_path / "file")
    assert all(torch.equal(written[name], value) for name, value in given.items())


def test_numbers_are_converted_one_tensor_after_the_other(tmp_path):
    tensor_file.write(tmp_path / "file", TENSORS, floats=torch.float16)
    written = load_file(tmp_path / "file")
    assert {name for name, value in written.items() if value.dtype == torch.float16} == {
        "b/weights", "a", "ä", "half", "brain", "double",
    }  # fmt: skip
    assert torch.equal(written["numbers"], TENSORS["numbers"])


def test_only_one_tensor_is_copied_at_a_time(tmp_path):
    """What lies on a GPU, or is converted, comes into the host's memory when it is written."""
    alive, most = set(), []

    class Elsewhere(torch.Tensor):
        def cpu(self):
            copy = self.as_subclass(torch.Tensor).clone()
            alive.add(id(copy.untyped_storage()))
            import weakref

            weakref.finalize(copy.untyped_storage(), alive.discard, id(copy.untyped_storage()))
            most.append(len(alive))
            return copy

        def detach(self):
            return self

    tensors = {name: torch.ones(1000).as_subclass(Elsewhere) for name in "abcd"}
    tensor_file.write(tmp_path / "file", tensors)
    assert len(most) == 4
    assert max(most) <= 2
    assert torch.equal(load_file(tmp_path / "file")["d"], torch.ones(1000))
