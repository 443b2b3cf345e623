"""What people's verdicts on duplicate candidates say: duplicates confirmed, or estimated where a sample was judged."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from augbench.seeds import generator

WORDS = ("duplicate", "not", "unsure")
KEY = ["added_id", "reference_set", "reference_id"]
CONFIDENCE = 0.95


def sample(candidates: pd.DataFrame, size: int, seed: int, method: str) -> pd.DataFrame:
    """The candidates that people judge: all, or ``size`` of them drawn without replacement, the closest first."""
    if len(candidates) > size:
        drawn = generator(seed, "inspected", method).choice(len(candidates), size, replace=False)
        candidates = candidates.iloc[np.sort(drawn)]
    return candidates.sort_values(["distance", *KEY], kind="stable", ignore_index=True)


def read(path: str | Path, candidates: pd.DataFrame) -> pd.DataFrame:
    """Verdicts as the review page saves them: added_id, reference_set, reference_id, verdict; all text.

    Raises ValueError with one sentence when a column is missing, a word is none of ``WORDS``, a pair is no candidate
    or is judged twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from None
    if missing := [column for column in [*KEY, "verdict"] if column not in table]:
        raise ValueError(f"{path} needs the columns {','.join([*KEY, 'verdict'])}; {missing[0]} is missing")
    for line, word in enumerate(table["verdict"], 2):
        if word not in WORDS:
            raise ValueError(f"{path}, line {line}: a verdict is one of {', '.join(WORDS)}, not {word!r}")
    known = set(candidates[KEY].astype(str).itertuples(index=False, name=None))
    seen = set()
    for line, pair in enumerate(table[KEY].itertuples(index=False, name=None), 2):
        told = f"{path}, line {line}: the pair of {pair[0]} and {pair[2]} ({pair[1]})"
        if pair not in known:
            raise ValueError(f"{told} is not a candidate of this audit; judge its own review page")
        if pair in seen:
            raise ValueError(f"{told} is judged twice; leave one of the lines")
        seen.add(pair)
    return table[[*KEY, "verdict"]]


def interval(candidates: int, inspected: int, least: int, most: int | None = None) -> tuple[int, int]:
    """95% confidence interval of the number of duplicates among ``candidates``, of which ``inspected``, drawn at random
    without replacement, held ``least`` of them, or up to ``most`` when it is not sure.

    The exact one of Clopper and Pearson for the hypergeometric distribution: the numbers of duplicates under which
    neither as many nor as few as were seen have a probability of 2.5% or less.
    """
    from scipy.stats import hypergeom

    most = least if most is None else most
    tail = (1 - CONFIDENCE) / 2
    total = np.arange(candidates + 1)
    as_many = hypergeom.sf(least - 1, candidates, total, inspected) > tail
    as_few = hypergeom.cdf(most, candidates, total, inspected) > tail
    possible = (total >= least) & (total <= candidates - (inspected - most))
    return int(total[as_many & possible].min()), int(total[as_few & possible].max())


def estimate(candidates: int, inspected: int, duplicates: int, unsure: int = 0) -> dict:
    """Duplicates among all candidates from a random sample of them (paper, section 4.5: 4 of 500, so 19 of 2,377).

    Returns ``rate`` (duplicates / inspected), ``estimate`` (rate x candidates) and ``low`` and ``high``, its interval
    (see :func:`interval`), for whose upper end what is unsure is a duplicate.
    """
    low, high = interval(candidates, inspected, duplicates, duplicates + unsure)
    rate = duplicates / inspected
    return {"rate": rate, "estimate": rate * candidates, "low": low, "high": high}


def summarise(
    candidates: pd.DataFrame, verdicts: pd.DataFrame, sizes: Mapping[str, int], size: int, seed: int, method: str
) -> dict[str, dict]:
    """What the verdicts on a method's candidates say about each reference set, in the order of ``sizes`` (set ->
    images).

    Each has ``candidates``, ``inspected``, ``duplicates``, ``unsure`` (pairs), ``leaked`` (distinct reference images
    among the duplicates), ``drop`` (percentage points of accuracy that were lost if all of them were test images
    classified rightly only because they leaked; paper, section 4.5), ``finished``, and rate, estimate, low and high of
    :func:`estimate`, None until every pair of the :func:`sample` is judged: pairs are shown by distance, so those
    judged first are no random sample.
    """
    judged = set(verdicts[KEY].itertuples(index=False, name=None))
    wanted = sample(candidates, size, seed, method)[KEY].astype(str)
    finished = all(pair in judged for pair in wanted.itertuples(index=False, name=None))
    whole = len(judged) in (len(wanted), len(candidates))
    found = {}
    for name, images in sizes.items():
        mine = verdicts[verdicts["reference_set"] == name]
        real = mine[mine["verdict"] == "duplicate"]
        about = {
            "candidates": int((candidates["reference_set"] == name).sum()),
            "inspected": len(mine),
            "duplicates": len(real),
            "unsure": int((mine["verdict"] == "unsure").sum()),
            "leaked": real["reference_id"].nunique(),
            "images": images,
            "drop": 100 * real["reference_id"].nunique() / images if images else 0.0,
            "finished": finished and whole,
        }
        nothing = dict.fromkeys(("rate", "estimate", "low", "high"))
        numbers = (about["candidates"], len(mine), about["duplicates"], about["unsure"])
        found[name] = about | (estimate(*numbers) if about["finished"] and len(mine) else nothing)
    return found
