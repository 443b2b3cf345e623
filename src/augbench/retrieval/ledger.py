"""What becomes of each neighbour: its fate, and the class that it is used for."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

FATES = {  # what became of a neighbour, roughly in the order in which it is found out
    "taken": "used at the main ratio already",
    "unscored": "its aesthetic score is not known",
    "unaesthetic": "aesthetic score too low",
    "duplicate": "duplicate of a more similar neighbour, or the same bytes",
    "refused": "an address or scheme that must not be asked",
    "dead": "could not be downloaded",
    "timeout": "the server was too slow",
    "opted out": "the server says that it must not be used",
    "too large": "more bytes or pixels than allowed",
    "too small": "fewer pixels than wanted",
    "unreadable": "not an image",
    "unsafe": "refused by the safety checker",
    "other class": "used for another class, to which it is more similar",
    "spare": "good, but not needed",
    "used": "good and among the best",
}
LEDGER = ["class", "rank", "id", "similarity", "url", "caption", "aesthetic", "fate", "reason", "sha256"]


def count_fates(ledger: pd.DataFrame, counts: Mapping[str, int]) -> pd.DataFrame:
    """What became of the neighbours of each class: columns class, wanted, considered, and one for each of FATES."""
    counted = ledger.groupby(["class", "fate"]).size().unstack(fill_value=0)
    counted = counted.reindex(index=list(counts), columns=list(FATES), fill_value=0)
    counted.insert(0, "considered", counted.sum(axis=1))
    counted.insert(0, "wanted", list(counts.values()))
    return counted.rename_axis("class").rename_axis(None, axis=1).reset_index()


def before_download(rows: pd.DataFrame, min_aesthetic: float | None, taken: pd.DataFrame) -> pd.DataFrame:
    """Neighbours with their address, and fate and reason as far as known without a download, else empty.

    An image's address is its place on this machine, else its URL. ``taken`` are rows of the main ratio's ledger that it
    used: neither they nor their duplicates are used again.
    """
    owners = dict(zip(taken["id"], taken["class"], strict=True))
    first = rows["duplicate_of"].fillna(rows["id"])  # of a group of duplicates
    used = {group: image for group, image in zip(first, rows["id"], strict=True) if image in owners and group >= 0}
    addresses, fates, reasons = [], [], []
    named: Iterator[Any] = rows.itertuples()
    for row, group in zip(named, first, strict=True):
        fate, reason = "", ""
        address = f"{row.path}:{row.offset}" if isinstance(row.path, str) else row.url
        if row.id in owners:
            fate, reason = "taken", f"used for {owners[row.id]}"
        elif min_aesthetic is not None and pd.isna(row.aesthetic):
            fate = "unscored"
        elif min_aesthetic is not None and row.aesthetic < min_aesthetic:
            fate, reason = "unaesthetic", f"{row.aesthetic:g}"
        elif group in used:
            fate, reason = "duplicate", f"of {used[group]}"
        elif pd.notna(row.duplicate_of):
            fate, reason = "duplicate", f"of {row.duplicate_of}" if row.duplicate_of >= 0 else ""
        elif not isinstance(address, str):
            fate, reason = "dead", "no URL is known"
        addresses.append(address)
        fates.append(fate)
        reasons.append(reason)
    return rows.assign(address=addresses, fate=fates, reason=reasons)


def assign_images(
    neighbours: Mapping[str, pd.DataFrame],
    known: Mapping[str, Mapping],
    counts: Mapping[str, int],
    taken: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The ledger: every neighbour of every class with its final fate.

    Each class takes the best of its good images, by rank. Each image (by sha256) is used for one class only: the most
    similar one, ties going to the earlier class; the others take their next. (Stable matching, classes proposing; the
    outcome does not depend on the order of classes.)

    Parameters
    ----------
    neighbours : class -> rows of :func:`before_download`; known : address -> fate, reason, sha256 of what was
        downloaded; counts : class -> images that it needs
    taken : columns class, sha256, of images that stay with their class
    """
    ledger = _known_so_far(neighbours, known, taken)
    good = ledger.loc[ledger["fate"] == "good", ["class", "place", "id", "similarity", "sha256"]]
    offers: dict[str, list] = {
        str(key): list(rows.itertuples()) for key, rows in good.groupby("class", sort=False)
    }  # by rank
    owner = _matched(offers, counts)
    fates, reasons = ledger["fate"].tolist(), ledger["reason"].tolist()
    for key, rows in offers.items():
        for row in rows:
            fates[row.Index], reasons[row.Index] = _fate(row, key, owner.get(row.sha256))
    return ledger.assign(fate=fates, reason=reasons).drop(columns="place")


def _known_so_far(neighbours: Mapping, known: Mapping, taken: pd.DataFrame | None) -> pd.DataFrame:
    """The ledger in which what could be used is still ``good``; place is the position of the class."""
    owners = dict(zip(taken["sha256"], taken["class"], strict=True)) if taken is not None else {}

    def facts_of(address: str, fate: str) -> Mapping:
        fact = known.get(address, {}) if fate == "" else {}
        if fact.get("fate") == "good" and fact["sha256"] in owners:
            return fact | {"fate": "taken", "reason": f"used for {owners[fact['sha256']]}"}
        return fact

    tables = []
    for place, (key, rows) in enumerate(neighbours.items()):
        facts = [facts_of(address, fate) for address, fate in zip(rows["address"], rows["fate"], strict=True)]
        tables.append(
            rows.assign(
                **{"class": key, "rank": range(len(rows)), "place": place},
                fate=[fact.get("fate") or fate for fact, fate in zip(facts, rows["fate"], strict=True)],
                reason=[fact.get("reason") or reason for fact, reason in zip(facts, rows["reason"], strict=True)],
                aesthetic=pd.Series(
                    [fact.get("aesthetic", own) for fact, own in zip(facts, rows["aesthetic"], strict=True)],
                    rows.index,
                    float,
                ),
                sha256=[fact.get("sha256") for fact in facts],
            )
        )
    return pd.concat([rows for rows in tables if len(rows)] or tables[:1], ignore_index=True)


def _matched(offers: Mapping[str, list], counts: Mapping[str, int]) -> dict[str, tuple]:
    """sha256 -> class and row that it is used for, given each class's good images, the best first."""
    owner: dict[str, tuple] = {}
    rest = {key: iter(rows) for key, rows in offers.items()}
    have = dict.fromkeys(offers, 0)
    waiting = list(offers)
    while waiting:
        key = waiting.pop()
        row = next(rest[key], None) if have[key] < counts[key] else None
        if row is None:
            continue
        waiting.append(key)
        holder = owner.get(row.sha256)
        if holder is None or (row.similarity, -row.place) > (holder[1].similarity, -holder[1].place):
            if holder and holder[0] == key:
                continue  # the same bytes again, at another place in this class
            owner[row.sha256] = (key, row)
            have[key] += 1
            if holder:
                have[holder[0]] -= 1
                waiting.append(holder[0])
    return owner


def _fate(row, key: str, holder: tuple | None) -> tuple[str, str]:
    """Fate and reason of a good image for class ``key``, given class and row that its bytes are used for."""
    if holder is None:
        return "spare", ""
    if holder[0] != key:
        return "other class", f"used for {holder[0]}"
    return ("used", "") if holder[1].Index == row.Index else ("duplicate", f"of {holder[1].id}")
