"""What retrieval searches for, and searches of which each answer is kept."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from augbench.core.files import whole
from augbench.retrieval.captions import Captions
from augbench.study.matches import MATCHES, Match
from augbench.study.prompts import fill, usable
from augbench.study.queries import Query

NOTHING = 1e-4  # length of a weighted sum of unit vectors that is rounding


def prompts(classes: pd.DataFrame, conditioning: str) -> list[list[str]]:
    """The prompts of each class of a class table: all templates of a conditioning that it can fill in."""
    return [[fill(template, row) for template in usable(conditioning, row)] for row in classes.to_dict("records")]


def query(texts: Sequence[str], pictures, clip, weights: Query):
    """What to search for: a single text; else the direction, float32 (width,), of the weighted sum of the mean
    directions of texts and of pictures, less that of the text that images should not be like.

    Parameters
    ----------
    texts : prompts of a class
    pictures : embeddings (n, width) of its training images, or None where they weigh nothing
    clip : a :class:`augbench.models.clip.Clip`, used unless there is a single text and nothing else

    Raises ValueError when nothing is left of the sum.
    """
    if weights.is_texts_alone and len(texts) == 1:
        return texts[0]
    parts = []
    if weights.texts:
        parts.append((weights.texts, _mean(clip.texts(texts))))
    if weights.images:
        parts.append((weights.images, _mean(pictures)))
    if weights.unlike is not None:
        parts.append((-weights.not_weight, _mean(clip.texts([weights.unlike]))))
    if len(parts) == 1:
        return parts[0][1]
    total = sum(weight * direction for weight, direction in parts)
    if not np.linalg.norm(total) > NOTHING:
        raise ValueError(f"nothing is left of the query for {texts[0]!r}: its parts cancel out; change their weights")
    return _direction(total)


def _mean(vectors):
    """The direction of the mean of unit vectors (n, width), float32 (width,)."""
    return _direction(vectors.mean(0))


def _direction(vector):
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class CachedSearch:
    """Searches a source (see :mod:`augbench.retrieval.index`); each answer is kept as a file in ``folder`` as soon as
    it is there, so that a job that is killed asks no query again.

    Parameters
    ----------
    duplicate_threshold : cosine similarity from which two images are duplicates
    diversity : 0, the most similar images; above, the best by maximal marginal relevance
    match : which rows are considered; captions : the full-text index that it reads, if it does
    """

    def __init__(
        self,
        source,
        folder: str | Path,
        duplicate_threshold: float,
        diversity: float = 0.0,
        *,
        match: Match = MATCHES["clip"],
        captions: Captions | None = None,
    ):
        self.source, self.folder, self.threshold, self.diversity = source, Path(folder), duplicate_threshold, diversity
        self.match, self.captions = match, captions

    def neighbours(
        self,
        queries: Sequence,
        counts: Sequence[int],
        among: Sequence[int],
        progress: Callable[[int, int, str], None],
        names: Sequence[Sequence[str]] = (),
    ) -> list[Path]:
        """The files of the queries' tables, each with (at most) its count of neighbours; with a diversity the best
        ``among`` so many nearest; without one, that is how many may be asked for later. ``names`` are those that
        captions have, for each query, where captions are read."""
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
            if self.captions:
                facts += [self.captions.identity, self.match.name, list(names[place])]
            paths.append(self.folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.parquet")
        left = [place for place, path in enumerate(paths) if not path.exists()]
        answers = self.source.neighbours(
            [queries[place] for place in left],
            [counts[place] for place in left],
            self.threshold,
            diversity=self.diversity,
            among=[among[place] for place in left] if among else [],
            **self._matched([names[place] for place in left] if self.captions else []),
        )
        for number, (place, rows) in enumerate(zip(left, answers if left else (), strict=True)):
            with whole(paths[place]) as temporary:
                rows.to_parquet(temporary, index=False)
            progress(number + 1, len(left), "queries answered")
        return paths

    def _matched(self, names: Sequence[Sequence[str]]) -> dict:
        """Which rows the source is to consider for each query, and in which order; nothing where it may be any."""
        if not self.captions or not names:
            return {}
        rows = [self.captions.rows(each) for each in names]
        fewest = min(map(len, rows))
        print(f"captions name the classes {sum(map(len, rows)):,} times, each at least {fewest:,} times", flush=True)
        return {"rows": rows, "by_similarity": self.match.by_similarity}
