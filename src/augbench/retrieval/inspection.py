"""Looks at what was downloaded: whether it is a picture, and one that may be used."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import files
from augbench.study.sections.retrieval import Retrieval

AT_A_TIME = 64  # pictures in memory
KEPT = 16 * AT_A_TIME  # downloads whose verdicts are kept together: what a kill may cost
VERDICT = ("fate", "reason", "aesthetic")  # what is found out about a download


class Inspection:
    """Finds out whether downloads are pictures that may be used: of a fit size, safe, and of some aesthetic score.

    Parameters
    ----------
    checker : a :class:`augbench.models.backbones.SafetyChecker`
    score : gives pictures their aesthetic scores, which then count instead of those that the source knows
    kept : a folder for verdicts, with which a killed job goes on; of the models and settings ``fingerprint`` alone
    """

    def __init__(
        self,
        checker,
        settings: Retrieval,
        score: Callable[[list], Sequence[float]] | None = None,
        kept: Path | None = None,
        fingerprint: str = "",
    ):
        self.checker, self.settings, self.score = checker, settings, score
        self.kept, self.fingerprint = kept, fingerprint

    @property
    def known_score(self) -> float | None:
        """The aesthetic score that a source must know of an image; None where the pictures themselves are scored."""
        return self.settings.min_aesthetic if self.score is None else None

    def __call__(self, fetched: Iterable[pd.DataFrame], total: int, progress: Callable) -> list[dict]:
        """Downloads (tables of columns address, fate, reason, sha256, path, offset, length, as they come) as rows whose
        fate is final, or ``good``; ``total``: how many there will be.

        Which pictures a network sees together does not depend on how the downloads are cut into tables.
        """
        judged = []
        for rows in _parts(fetched, KEPT):
            chosen = [row for row in rows if row["fate"] == "fetched"]
            facts = json.dumps([self.fingerprint, [[row["address"], row["sha256"]] for row in chosen]])
            file = self.kept / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.json" if self.kept else None
            if file and file.exists():
                for row, verdict in zip(chosen, files.read_json(file), strict=True):
                    row.update(verdict)
            else:
                for start in range(0, len(rows), AT_A_TIME):
                    self._judge([row for row in rows[start : start + AT_A_TIME] if row["fate"] == "fetched"])
                if file:
                    files.write_json(file, [{name: row[name] for name in VERDICT if name in row} for row in chosen])
            judged += rows
            progress(len(judged), total, "downloads judged")
        return judged

    def _judge(self, rows: list[dict]) -> None:
        """Note the verdicts on downloads in their rows."""
        pairs = [(row, picture) for row in rows if (picture := self._picture(row)) is not None]
        pairs = self._aesthetic(pairs)
        refused = self.checker.unsafe([picture for _, picture in pairs])
        for (row, _), unsafe in zip(pairs, refused, strict=True):
            row["fate"] = "unsafe" if unsafe else "good"

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


def _parts(tables: Iterable[pd.DataFrame], size: int) -> Iterator[list[dict]]:
    """The rows of all tables, so many at a time, however they are cut into tables."""
    rows: list[dict] = []
    for table in tables:
        rows += table.to_dict("records")
        while len(rows) >= size:
            yield rows[:size]
            rows = rows[size:]
    if rows:
        yield rows
