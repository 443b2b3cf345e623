"""The second detector's models and files."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from augbench.images import embeddings
from augbench.models import copy_detectors


class Means(torch.nn.Module):
    def forward(self, batch):
        return batch.mean(dim=(2, 3))


def test_a_scripted_model_sees_normalised_pictures(tmp_path):
    torch.jit.script(Means()).save(tmp_path / "model.pt")
    embed = copy_detectors.scripted(tmp_path / "model.pt", 8)
    found = embed([Image.new("RGB", (20, 10), (255, 0, 51)), Image.new("RGB", (8, 8))])
    black = [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    expected = np.array([[(1 - 0.485) / 0.229, black[1], (0.2 - 0.406) / 0.225], black])
    assert found == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True), abs=1e-5)


def test_a_pickle_is_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    torch.save(Evil(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="model.pt is not a TorchScript model"):
        copy_detectors.scripted(tmp_path / "model.pt", 8)
    assert not (tmp_path / "made").exists()


def test_kept_vectors_are_found_by_their_image(tmp_path):
    table = pd.DataFrame({"image_id": list("abc")})
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    embeddings.write(tmp_path / "v.parquet", table, vectors)
    assert embeddings.read(tmp_path / "v.parquet", table.iloc[[2, 0]]).tolist() == [[4, 5], [0, 1]]
    with pytest.raises(ValueError, match="no embedding of d"):
        embeddings.read(tmp_path / "v.parquet", pd.DataFrame({"image_id": ["d"]}))
    embeddings.write(tmp_path / "none.parquet", table.iloc[:0], np.zeros((0, 1), np.float32))
    assert embeddings.read(tmp_path / "none.parquet", table.iloc[:0]).shape == (0, 1)
