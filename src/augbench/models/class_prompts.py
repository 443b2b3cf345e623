"""Classes in the eyes of CLIP, by their names alone."""

from collections.abc import Mapping, Sequence

import numpy as np

from augbench.models.clip import Clip
from augbench.study import prompts
from augbench.study.scores import PROMPT


def embed(rows: Sequence[Mapping], model: Clip) -> np.ndarray:
    """Embeddings of classes, which are ``rows`` of the class table: float32 (classes, width), each the mean of its
    prompts' embeddings, and of length 1."""
    texts = [prompts.fill(template, row) for row in rows for template in prompts.templates(PROMPT)]
    vectors = model.texts(texts)
    means = vectors.reshape(len(rows), -1, vectors.shape[1]).mean(1)
    return np.stack([mean / np.linalg.norm(mean) for mean in means])
