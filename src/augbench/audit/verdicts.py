"""What people's verdicts on duplicate candidates say: duplicates confirmed, or estimated where a sample was judged.

People judge every candidate of some reference sets, the test split above all, and a random sample of those of others,
as in the paper (section 4.5): each set is a population of its own.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from augbench.core.seeds import generator

WORDS = ("duplicate", "not", "unsure")
KEY = ["added_id", "reference_set", "reference_id"]
CONFIDENCE = 0.95


def sample(candidates: pd.DataFrame, size: int, in_full: Collection[str], seed: int, method: str) -> pd.DataFrame:
    """The candidates that people judge, the closest first: all of the reference sets ``in_full``, and of each other set
    all, or ``size`` of them drawn without replacement."""
    parts = [candidates.iloc[:0]]
    for name, mine in candidates.groupby("reference_set", sort=True):
        if len(mine) > size and name not in in_full:
            drawn = generator(seed, "inspected", method, name).choice(len(mine), size, replace=False)
            mine = mine.iloc[np.sort(drawn)]
        parts.append(mine)
    return pd.concat(parts).sort_values(["distance", *KEY], kind="stable", ignore_index=True)


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
        place = f"{path}, line {line}: the pair of {pair[0]} and {pair[2]} ({pair[1]})"
        if pair not in known:
            raise ValueError(f"{place} is not a candidate of this audit; judge its own review page")
        if pair in seen:
            raise ValueError(f"{place} is judged twice; leave one of the lines")
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


def leaked(pairs: Mapping, references: pd.Series, confirmed: int) -> dict:
    """Distinct reference images among the duplicates, from :func:`estimate` of the pairs: estimate, low and high.

    ``references`` are the reference images of all candidate pairs, ``confirmed`` how many of them are known to be
    duplicates. An image may be in several pairs, of which a sample tells little, so both ends are safe: ``low`` images
    at least hold so many duplicate pairs even if all pairs of the most frequent images are duplicates, and ``high`` is
    reached when each pair shows another image. So is the estimate, which is too high rather than too low.
    """
    counts = references.value_counts().to_numpy()  # the most frequent first
    least = int(np.searchsorted(np.cumsum(counts), pairs["low"])) + 1 if pairs["low"] else 0
    most = len(counts)
    return {
        "estimate": max(confirmed, min(pairs["estimate"], most)),
        "low": max(confirmed, least),
        "high": max(confirmed, min(pairs["high"], most)),
    }


def summarise(
    candidates: pd.DataFrame,
    verdicts: pd.DataFrame,
    sizes: Mapping[str, int],
    size: int,
    in_full: Collection[str],
    seed: int,
    method: str,
) -> dict[str, dict]:
    """What the verdicts on a method's candidates say about each reference set, in the order of ``sizes`` (set ->
    images).

    Each has ``candidates``, ``inspected``, ``duplicates``, ``unsure`` (pairs); ``added`` and ``leaked``, the distinct
    added and reference images among the confirmed duplicates; and ``state``: ``all``, every candidate is judged, so
    these are all there are; ``sample``, the whole :func:`sample` is, so they can be estimated; ``part``, so that there
    are so many at least. Pairs are shown by distance: those judged first are no random sample.

    Further, rate, estimate, low and high of :func:`estimate`, ``leaked_estimate``, ``leaked_low`` and ``leaked_high``
    of :func:`leaked`, and ``drop``, ``drop_low`` and ``drop_high``: the percentage points of accuracy that were lost if
    all leaked images were test images classified rightly only because they leaked (paper, section 4.5). They are None
    in the state ``part``, but for ``drop``, which then is of the confirmed ones: the least there can be.
    """
    chosen = sample(candidates, size, in_full, seed, method)
    said = verdicts.set_index(KEY)["verdict"]
    return {name: _of_set(name, images, candidates, chosen, said) for name, images in sizes.items()}


def _of_set(name: str, images: int, candidates: pd.DataFrame, chosen: pd.DataFrame, said: pd.Series) -> dict:
    def judged(table: pd.DataFrame) -> pd.DataFrame:
        mine = table[table["reference_set"] == name].astype(dict.fromkeys(KEY, str))
        return mine.assign(verdict=said.reindex(pd.MultiIndex.from_frame(mine[KEY])).to_numpy())

    every, drawn = judged(candidates), judged(chosen)
    known = every[every["verdict"].notna()]
    real = known[known["verdict"] == "duplicate"]
    confirmed = real["reference_id"].nunique()
    state = {
        "candidates": len(every),
        "inspected": len(known),
        "duplicates": len(real),
        "unsure": int((known["verdict"] == "unsure").sum()),
        "added": real["added_id"].nunique(),
        "leaked": confirmed,
        "images": images,
        "state": "all" if len(known) == len(every) else "sample" if drawn["verdict"].notna().all() else "part",
    }
    population = every if state["state"] == "all" else drawn
    pairs = dict.fromkeys(("rate", "estimate", "low", "high"))
    images_leaked = dict.fromkeys(("estimate", "low", "high"))
    if state["state"] != "part" and len(population):
        counts = population["verdict"].value_counts()
        pairs = estimate(len(every), len(population), counts.get("duplicate", 0), counts.get("unsure", 0))
        pairs |= {key: max(pairs[key], len(real)) for key in ("estimate", "low", "high")}  # some were judged beside
        images_leaked = leaked(pairs, every["reference_id"], confirmed)
        if state["state"] == "all":
            unsure = known[known["verdict"] == "unsure"]["reference_id"]
            most = len(set(real["reference_id"]) | set(unsure))
            images_leaked = {"estimate": confirmed, "low": confirmed, "high": most}
    elif state["state"] == "all":  # there is no candidate
        pairs, images_leaked = {"rate": 0.0, "estimate": 0.0, "low": 0, "high": 0}, dict.fromkeys(images_leaked, 0)
    share = 100 / images if images else 0.0
    drops = {key: None if value is None else share * value for key, value in images_leaked.items()}
    return (
        state
        | pairs
        | {f"leaked_{key}": value for key, value in images_leaked.items()}
        | {"drop": share * confirmed if drops["estimate"] is None else drops["estimate"]}
        | {"drop_low": drops["low"], "drop_high": drops["high"]}
    )
