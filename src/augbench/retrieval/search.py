"""What retrieval searches for, and searches of which each answer is kept."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from augbench.core.files import whole
from augbench.study.prompts import fill, usable


def prompts(classes: pd.DataFrame, conditioning: str) -> list[list[str]]:
    """The prompts of each class of a class table: all templates of a conditioning that it can fill in."""
    return [[fill(template, row) for template in usable(conditioning, row)] for row in classes.to_dict("records")]


def query(texts: Sequence[str], pictures, clip):
    """What to search for: the text; of several, their mean in CLIP space; with pictures, the mean of texts and
    pictures.

    Parameters
    ----------
    texts : prompts of a class; pictures : embeddings (n, width) of its training images, or None
    clip : a :class:`augbench.models.clip.Clip`, used unless there is a single text and nothing else
    """
    if pictures is None and len(texts) == 1:
        return texts[0]
    import numpy as np

    of_texts = _mean(clip.texts(texts))
    return of_texts if pictures is None else _mean(np.stack([of_texts, _mean(pictures)]))


def _mean(vectors):
    """The direction of the mean of unit vectors (n, width), float32 (width,)."""
    import numpy as np

    mean = vectors.mean(0)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


class CachedSearch:
    """Searches a source (see :mod:`augbench.retrieval.index`); each answer is kept as a file in ``folder`` as soon as
    it is there, so that a job that is killed asks no query again.

    Parameters
    ----------
    duplicate_threshold : cosine similarity from which two images are duplicates
    diversity : 0, the most similar images; above, the best by maximal marginal relevance
    """

    def __init__(self, source, folder: str | Path, duplicate_threshold: float, diversity: float = 0.0):
        self.source, self.folder, self.threshold, self.diversity = source, Path(folder), duplicate_threshold, diversity

    def neighbours(
        self, queries: Sequence, counts: Sequence[int], among: Sequence[int], progress: Callable[[int, int, str], None]
    ) -> list[Path]:
        """The files of the queries' tables, each with (at most) its count of neighbours; with a diversity the best
        ``among`` so many nearest;
        without one, that is how many may be asked for later."""
        paths = []
        for place, (query, count) in enumerate(zip(queries, counts, strict=True)):
            asked = query if isinstance(query, str) else query.tolist()
            facts = [
                self.source.identity,
                self.threshold,
                self.diversity,
                asked,
                count,
                among[place] if self.diversity else None,
            ]
            paths.append(self.folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.parquet")
        left = [place for place, path in enumerate(paths) if not path.exists()]
        answers = self.source.neighbours(
            [queries[place] for place in left],
            [counts[place] for place in left],
            self.threshold,
            diversity=self.diversity,
            among=[among[place] for place in left] if among else [],
        )
        for number, (place, rows) in enumerate(zip(left, answers if left else (), strict=True)):
            with whole(paths[place]) as temporary:
                rows.to_parquet(temporary, index=False)
            progress(number + 1, len(left), "queries answered")
        return paths
