"""Looks at what was downloaded: whether it is a picture, and one that may be used."""

from collections.abc import Callable, Sequence

import pandas as pd

from augbench import images
from augbench.study.sections.retrieval import Retrieval

AT_A_TIME = 64  # pictures in memory


class Inspection:
    """Finds out whether downloads are pictures that may be used: of a fit size, safe, and of some aesthetic score.

    Parameters
    ----------
    checker : a :class:`augbench.models.backbones.SafetyChecker`
    score : gives pictures their aesthetic scores, which then count instead of those that the source knows
    """

    def __init__(self, checker, settings: Retrieval, score: Callable[[list], Sequence[float]] | None = None):
        self.checker, self.settings, self.score = checker, settings, score

    @property
    def known_score(self) -> float | None:
        """The aesthetic score that a source must know of an image; None where the pictures themselves are scored."""
        return self.settings.min_aesthetic if self.score is None else None

    def __call__(self, fetched: pd.DataFrame, progress: Callable) -> list[dict]:
        """Downloads (columns address, fate, reason, sha256, path, offset, length) as rows whose fate is final, or
        ``good``; some pictures at a time."""
        rows = fetched.to_dict("records")
        for start in range(0, len(rows), AT_A_TIME):
            chunk = [row for row in rows[start : start + AT_A_TIME] if row["fate"] == "fetched"]
            pairs = [(row, picture) for row in chunk if (picture := self._picture(row)) is not None]
            pairs = self._aesthetic(pairs)
            refused = self.checker.unsafe([picture for _, picture in pairs])
            for (row, _), unsafe in zip(pairs, refused, strict=True):
                row["fate"] = "unsafe" if unsafe else "good"
            progress(min(start + AT_A_TIME, len(rows)), len(rows), "downloads judged")
        return rows

    def _picture(self, row: dict):
        """The decoded picture; None, with the reason in the row, for what is none of a fit size."""
        try:
            picture = images.decode(images.load_bytes(pd.Series(row)), row["address"], self.settings.max_pixels)
        except ValueError as error:
            row["fate"] = "too large" if isinstance(error, images.TooManyPixels) else "unreadable"
            row["reason"] = str(error).removeprefix(f"cannot read {row['address']}: ")[:200]
            return None
        if min(picture.size) < self.settings.min_image_size:
            row["fate"], row["reason"] = "too small", f"{picture.width} x {picture.height}"
            return None
        return picture

    def _aesthetic(self, pairs: list[tuple[dict, object]]) -> list[tuple[dict, object]]:
        """The pairs whose picture scores enough; notes the scores in the rows."""
        if self.score is None or self.settings.min_aesthetic is None or not pairs:
            return pairs
        for (row, _), value in zip(pairs, self.score([picture for _, picture in pairs]), strict=True):
            row["aesthetic"] = float(value)
            if not value >= self.settings.min_aesthetic:
                row["fate"], row["reason"] = "unaesthetic", f"{value:g}"
        return [(row, picture) for row, picture in pairs if row["fate"] != "unaesthetic"]
