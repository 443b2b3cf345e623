"""Leaves out images by their scores before sets are drawn: those that may be copies of held-out ones, and those that a
method's filter refuses. A ledger names each of them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from augbench import images
from augbench.core.files import BadInput, write_csv
from augbench.study import classes
from augbench.study.scores import SCORES
from augbench.study.sections.filter import Filter

LEAKS = ("held_out_bits", "held_out_distance")  # scores that say how near an image is to a held-out one
LEDGER = ["image_id", "class", "by", "score", "threshold", "reason"]
COUNTS = ["class", "candidates", "leaks", "filtered", "kept", "wanted"]


class Leaks(NamedTuple):
    """When an image is a candidate of a duplicate of a held-out one, as for the audit: when their hashes differ in
    fewer bits, or when their embeddings are no further apart; None where embeddings do not count."""

    bits: int
    distance: float | None = None


def refused(scores: pd.DataFrame, leaks: Leaks | None, rule: Filter | None) -> pd.DataFrame:
    """Of a table of scores the images that are not added, as ``LEDGER``, indexed by their place; in that order.

    Candidates of leaks go first; the filter sees the images that are left. Of equal scores the first ones are kept.
    """
    parts = [_leaks(scores, leaks)] if leaks else []
    if rule:
        left = scores.drop(index=parts[0].index) if parts else scores
        parts.append(_filtered(left, rule))
    return pd.concat(parts).sort_index() if parts else pd.DataFrame(columns=LEDGER)


def _leaks(scores: pd.DataFrame, leaks: Leaks) -> pd.DataFrame:
    bits, distance = LEAKS
    close = scores[bits] < leaks.bits
    if leaks.distance is not None:
        scores = scores[close | (scores[distance] <= leaks.distance)]
        close = close[scores.index]
    else:
        scores, close = scores[close], close[close]
    held_out = np.where(close, scores[SCORES[bits].id_column], scores[SCORES[distance].id_column])
    return scores[["image_id", "class"]].assign(
        by=np.where(close, bits, distance),
        score=np.where(close, scores[bits], scores[distance]),
        threshold=np.where(close, leaks.bits, math.nan if leaks.distance is None else leaks.distance),
        reason=[f"may be a copy of the held-out image {name}" for name in held_out],
    )


def _filtered(scores: pd.DataFrame, rule: Filter) -> pd.DataFrame:
    values = scores[rule.by.name]
    if values.isna().any():
        name = scores["image_id"][values.isna()].iloc[0]
        raise BadInput(f"the image {name} has no score {rule.by.name}; filter by another one")
    if rule.keep is None:
        threshold = pd.Series(rule.at_least, scores.index, float)
        kept, reason = values >= threshold, "below the threshold"
    else:
        ranked = values.sort_values(ascending=False, kind="stable")
        by_class = scores["class"].loc[ranked.index]
        sizes = by_class.map(by_class.value_counts())
        first = by_class.groupby(by_class).cumcount() < np.ceil((rule.keep * sizes).astype(float).round(9))
        kept = first.reindex(scores.index)
        lowest = values[kept].groupby(scores["class"][kept]).min()
        threshold = scores["class"].map(lowest).astype(float)
        reason = f"not among the best {100 * rule.keep:g}% of its class"
    scores = scores[~kept]
    table = scores[["image_id", "class"]].assign(
        by=rule.by.name, score=values[~kept], threshold=threshold[~kept], reason=reason
    )
    if rule.by.nearest:
        table["reason"] += "; nearest " + scores[rule.by.id_column].astype(str)
    return table


def counted(scores: pd.DataFrame, ledger: pd.DataFrame, wanted: Mapping[str, int]) -> pd.DataFrame:
    """Images of each class of ``wanted`` as ``COUNTS``: before, refused as leaks or by the filter, kept, wanted."""
    leaks = ledger["reason"].str.startswith("may be a copy").astype(bool)

    def per_class(rows: pd.DataFrame) -> list[int]:
        counts = rows["class"].value_counts().to_dict()
        return [counts.get(key, 0) for key in wanted]

    table = pd.DataFrame(
        {"class": list(wanted), "candidates": per_class(scores), "leaks": per_class(ledger[leaks])}
    ).assign(filtered=per_class(ledger[~leaks]), wanted=list(wanted.values()))
    return table.assign(kept=table["candidates"] - table["leaks"] - table["filtered"])[COUNTS]


def check(counts: pd.DataFrame, method: str, rule: Filter | None, fewer: bool) -> None:
    """Raise BadInput when nothing is left of a class that had images, or, unless ``fewer`` are allowed, less than is
    wanted of one that had enough."""
    empty = counts[(counts["kept"] == 0) & (counts["candidates"] > 0)]
    for row in empty.itertuples():
        if rule and row.filtered:
            raise BadInput(
                f"the filter of {method} by {rule.by.name} leaves none of the {row.candidates} images of the class "
                f"{row._1!r}; {_looser(rule)}, or leave the class out of the target"
            )
        raise BadInput(
            f"all {row.candidates} images of {method} of the class {row._1!r} may be copies of held-out images; write "
            "`drop_leaks: false`, or leave the class out of the target"
        )
    short = counts[counts["filtered"].gt(0) & (counts["kept"] < counts["wanted"])]
    if rule and len(short) and not fewer:
        row = next((short.loc[[(short["wanted"] - short["kept"]).idxmax()]]).itertuples())
        several = f" ({len(short)} of {len(counts)} classes have too few)" if len(short) > 1 else ""
        raise BadInput(
            f"the filter of {method} by {rule.by.name} leaves {row.kept} of the {row.candidates} images of the class "
            f"{row._1!r}, but {row.wanted} are added to it{several}; {_looser(rule)}, make more images, or write "
            "`allow_fewer: true` in the filter to add those that are left"
        )


def _looser(rule: Filter) -> str:
    if rule.keep is None:
        return f"write a lower `at_least` than {rule.at_least:g}"
    return f"write a higher `keep` than {rule.keep:g}"


def write(
    outputs: Mapping[str, str | Path],
    sources: Sequence[str | Path],
    scores: str | Path,
    trained: Mapping[str, int],
    *,
    method: str,
    rule: Mapping | None,
    leaks: Sequence | None,
    ratio: float | None,
) -> None:
    """Write ``images`` (an image table with those rows of the tables ``sources`` that are kept), ``ledger`` and
    ``counts`` (CSV, see :func:`refused` and :func:`counted`).

    Parameters
    ----------
    scores : table of scores of the images that may be added, in the order of the sources
    trained : class -> training images; rule : the method's ``filter``; leaks : see :class:`Leaks`
    ratio : the largest for which these images must suffice; None: no number is wanted

    Raises BadInput with one sentence when too few images of a class are left.
    """
    section = Filter.model_validate(rule) if rule else None
    names = [*LEAKS, *({section.by.name} - {*LEAKS} if section else ())]
    ids = [SCORES[name].id_column for name in names if SCORES[name].nearest]
    table = pq.read_table(scores, columns=["image_id", "class", *names, *ids]).to_pandas()
    ledger = refused(table, Leaks(*leaks) if leaks else None, section)
    wanted = {key: 0 if ratio is None else classes.added(count, ratio) for key, count in trained.items()}
    counts = counted(table, ledger, wanted)
    check(counts, method, section, bool(section and section.allow_fewer))
    kept = table["image_id"].drop(index=ledger.index)
    places = images.places_of(kept, images.read_columns(*sources, columns=("image_id",))["image_id"])
    images.write_rows(outputs["images"], sources, places.astype(np.int64))
    write_csv(outputs["ledger"], ledger)
    write_csv(outputs["counts"], counts)
