"""What becomes of each neighbour: its fate, and the class that it is used for."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from augbench.core.list_files import plain

pc: Any = pyarrow.compute  # of whose functions no type checker knows

FATES = {  # what became of a neighbour, roughly in the order in which it is found out
    "taken": "used at the main ratio already",
    "licence": "its licence is none of those that may be used, or not known",
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
_INTEGERS, _REALS = ("rank", "id"), ("similarity", "aesthetic")
LEDGER = ["class", "rank", "id", "similarity", "url", "caption", "aesthetic", "fate", "reason", "sha256"]
LICENCE = "licence"  # a further column, of a pool that states licences; and the fate of those that are not wanted

PENDING, GOOD = "", "good"  # not known without a download; good enough to be used
DIGEST = 16  # bytes of an address's digest


def schema(names: Sequence[str]) -> pa.Schema:
    """The types of columns of the ledger."""
    kinds = dict.fromkeys(_INTEGERS, pa.int64()) | dict.fromkeys(_REALS, pa.float64())
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names])


def count_fates(sizes: pd.Series, counts: Mapping[str, int]) -> pd.DataFrame:
    """What became of the neighbours of each class, from their number by class and fate: columns class, wanted,
    considered, and one for each of FATES; licences only where some were refused."""
    counted = sizes.unstack(fill_value=0)
    fates = [fate for fate in FATES if fate != LICENCE or fate in counted]
    counted = counted.reindex(index=list(counts), columns=fates, fill_value=0)
    counted.insert(0, "considered", counted.sum(axis=1))
    counted.insert(0, "wanted", list(counts.values()))
    return counted.rename_axis("class").rename_axis(None, axis=1).reset_index()


def before_download(
    rows: pd.DataFrame,
    min_aesthetic: float | None,
    owners: Mapping[int, str],
    licences: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Neighbours with their address, and fate and reason as far as known without a download, else ``PENDING``.

    An image's address is its place on this machine, else its URL. ``owners`` : id -> class of the images that the main
    ratio used: neither they nor their duplicates are used again. ``licences`` : those that may be used, else all; in
    any case, and with or without spaces, ``_`` and ``-``
    """
    allowed = None if licences is None else set(map(plain, licences))
    first = rows["duplicate_of"].fillna(rows["id"])  # of a group of duplicates
    used = {group: image for group, image in zip(first, rows["id"], strict=True) if image in owners and group >= 0}
    addresses, fates, reasons = [], [], []
    named: Iterator[Any] = rows.itertuples()
    for row, group in zip(named, first, strict=True):
        fate, reason = PENDING, ""
        address = f"{row.path}:{row.offset}" if isinstance(row.path, str) else row.url
        if row.id in owners:
            fate, reason = "taken", f"used for {owners[row.id]}"
        elif allowed is not None and plain(stated := _licence(row)) not in allowed:
            fate, reason = LICENCE, stated[:200] or "not known"
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


def _licence(row) -> str:
    """What is stated of an image's licence; empty where that is nothing."""
    stated = getattr(row, LICENCE, None)
    return stated.strip() if isinstance(stated, str) else ""


# --- all neighbours of a study at once, in some tens of bytes each: texts stay in the files of the answers ------------


class Ranked(NamedTuple):
    """What of a class's neighbours is needed to assign images, the best first."""

    ids: np.ndarray  # int64 (n,)
    similarities: np.ndarray  # float64 (n,)
    pending: np.ndarray  # bool (n,)
    addresses: pa.Array  # digests

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Ranked":
        """Of the rows of :func:`before_download`."""
        pending = (rows["fate"] == PENDING).to_numpy()
        similarities = rows["similarity"].to_numpy(np.float64)
        return cls(rows["id"].to_numpy(np.int64), similarities, pending, digests(rows["address"]))


def digests(addresses: Iterable[str | None]) -> pa.Array:
    """What stands for addresses, which may be ten million."""
    encoded = (str(address).encode("utf-8", "surrogatepass") for address in addresses)
    values = [hashlib.blake2b(address, digest_size=DIGEST).digest() for address in encoded]
    return pa.array(values, pa.binary(DIGEST))


_KNOWN = pa.schema(
    [
        ("address", pa.binary(DIGEST)),
        ("fate", pa.dictionary(pa.int32(), pa.string())),
        ("reason", pa.large_string()),
        ("sha256", pa.large_string()),
        ("path", pa.dictionary(pa.int32(), pa.string())),  # of a shard that holds thousands
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("aesthetic", pa.float64()),
    ]
)
FACTS = _KNOWN.names[1:]


class Known:
    """What is known of the images at addresses that were looked at: ``FACTS``. Fates are final, or ``GOOD``; aesthetic
    is the score of a picture that was scored."""

    def __init__(self, rows: Iterable[Mapping] = ()):
        self._table = _KNOWN.empty_table()
        self.add(rows)

    def add(self, rows: Iterable[Mapping]) -> None:
        """Rows with address and FACTS, as far as they have these."""
        facts = pd.DataFrame(list(rows), columns=["address", *FACTS])
        columns = [digests(facts["address"])]
        for name, kind in zip(FACTS, _KNOWN.types[1:], strict=True):
            is_coded = pa.types.is_dictionary(kind)
            column = pa.array(facts[name], kind.value_type if is_coded else kind, from_pandas=True)
            columns.append(column.dictionary_encode() if is_coded else column)
        self._table = pa.concat_tables([self._table, pa.table(columns, schema=_KNOWN)])

    @property
    def table(self) -> pa.Table:
        if self._table["address"].num_chunks > 1:  # of which each look-up would make a copy
            self._table = self._table.unify_dictionaries().combine_chunks()
        return self._table

    def places(self, addresses: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """The rows of addresses (digests), int32 (n,); -1 for one that was not looked at."""
        return pc.fill_null(pc.index_in(addresses, self.table["address"]), -1).to_numpy()

    def facts(self, places: np.ndarray) -> pd.DataFrame:
        """FACTS of rows, all missing where there is -1."""
        wanted = pa.array(places, pa.int64(), mask=places < 0)
        facts = self.table.select(FACTS).take(wanted).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        return facts.astype({"fate": object, "path": object})


class Outcome(NamedTuple):
    """What was decided of a class's neighbours, in their order."""

    places: np.ndarray  # int32 (n,): rows of Known; -1 where all was known before a download
    fates: np.ndarray  # int8 (n,): of good images, a number in ASSIGNED; -1 for all others
    numbers: np.ndarray  # int64 (n,): of the class, or the id of the image, that the reason names

    @property
    def used(self) -> np.ndarray:
        return self.fates == USED


ASSIGNED = ("used", "spare", "taken", "other class", "duplicate")
USED, SPARE, TAKEN, OTHER_CLASS, DUPLICATE = range(len(ASSIGNED))


def assign_images(
    ranked: Mapping[str, Ranked], known: Known, counts: Mapping[str, int], taken: Mapping[str, str] | None = None
) -> dict[str, Outcome]:
    """What becomes of every neighbour of every class.

    Each class takes the best of its good images, by rank. Each image (by sha256) is used for one class only: the most
    similar one, ties going to the earlier class; the others take their next. (Stable matching, classes proposing; the
    outcome does not depend on the order of classes.)

    Parameters
    ----------
    counts : class -> images that it needs; taken : sha256 -> class, of images that stay with their class
    """
    taken = taken or {}
    number_of = {key: number for number, key in enumerate(class_names(ranked, taken))}
    images, image_of, taken_by = _images(known, {sha256: number_of[key] for sha256, key in taken.items()})
    every = known.places(pa.chunked_array([mine.addresses for mine in ranked.values()], pa.binary(DIGEST)))
    ends = np.cumsum([len(mine.ids) for mine in ranked.values()])
    outcomes, offers = {}, {}
    for (key, mine), places in zip(ranked.items(), np.split(every, ends[:-1]), strict=True):
        places = np.where(mine.pending, places, np.int32(-1))
        numbers = image_of[places]
        outcomes[key] = Outcome(places, np.full(len(places), -1, np.int8), np.full(len(places), -1, np.int64))
        free = np.flatnonzero((numbers >= 0) & (taken_by[numbers] < 0))
        offers[key] = (free, numbers[free], mine.similarities[free])
        gone = np.flatnonzero((numbers >= 0) & (taken_by[numbers] >= 0))
        outcomes[key].fates[gone], outcomes[key].numbers[gone] = TAKEN, taken_by[numbers[gone]]
    holders, positions = _matched(offers, counts, images)
    for number, (key, (free, numbers, _)) in enumerate(offers.items()):
        holder, position = holders[numbers], positions[numbers]
        fates = np.where(holder < 0, SPARE, np.where(holder == number, DUPLICATE, OTHER_CLASS))
        is_used = (holder == number) & (position == np.arange(len(free)))
        outcomes[key].fates[free] = np.where(is_used, USED, fates)
        of_image = ranked[key].ids[free[np.where(holder == number, position, 0)]] if len(free) else holder
        outcomes[key].numbers[free] = np.where(holder == number, of_image, holder)
    return outcomes


def class_names(ranked: Mapping[str, Ranked], taken: Mapping[str, str]) -> list[str]:
    """The classes by the numbers that outcomes name: those that are filled, and others that images are taken by."""
    return list(dict.fromkeys([*ranked, *taken.values()]))


def _images(known: Known, taken: Mapping[str, int]) -> tuple[int, np.ndarray, np.ndarray]:
    """How many different images are good; which of them each row of ``known`` is, int32 (rows + 1,), -1 for what is not
    good; and the number of the class to which each is ``taken`` already, int64 (images + 1,), -1 for the others."""
    table = known.table
    good = pc.equal(table["fate"].cast(pa.string()), GOOD)
    coded = pc.if_else(good, table["sha256"], pa.scalar(None, pa.large_string())).combine_chunks().dictionary_encode()
    image_of = np.append(pc.fill_null(coded.indices, -1).to_numpy(), np.int32(-1))
    taken_by = np.full(len(coded.dictionary) + 1, -1, np.int64)
    if taken:
        at = pc.index_in(coded.dictionary, pa.array(taken, pa.large_string()))
        taken_by[:-1] = np.append(list(taken.values()), -1)[pc.fill_null(at, -1).to_numpy()]
    return len(coded.dictionary), image_of, taken_by


def _matched(offers: Mapping[str, tuple], counts: Mapping[str, int], images: int) -> tuple[np.ndarray, np.ndarray]:
    """For each image the number of the class that it is used for, and its position in that class's offers, int64
    (images,), -1 where it is used for none; given each class's good images, the best first."""
    holders, positions, best = np.full(images, -1), np.full(images, -1), np.zeros(images)
    keys = list(offers)
    following, have = [0] * len(keys), [0] * len(keys)
    waiting = list(range(len(keys)))
    while waiting:
        number = waiting.pop()
        _, mine, similarities = offers[keys[number]]
        place = following[number]
        if have[number] >= counts[keys[number]] or place >= len(mine):
            continue
        following[number] += 1
        waiting.append(number)
        image, similarity, holder = mine[place], similarities[place], holders[mine[place]]
        if holder < 0 or (similarity, -number) > (best[image], -holder):
            if holder == number:
                continue  # the same bytes again, at another place in this class
            holders[image], positions[image], best[image] = number, place, similarity
            have[number] += 1
            if holder >= 0:
                have[holder] -= 1
                waiting.append(holder)
    return holders, positions


def final_rows(key: str, rows: pd.DataFrame, outcome: Outcome, known: Known, names: Sequence[str]) -> pd.DataFrame:
    """Rows of :func:`before_download` of a class as rows of the ledger, with their final fate, path, offset and length
    of the bytes, and link: a number for each address that was asked for, -1 where none was. ``names`` are the
    :func:`class_names`."""
    facts = known.facts(outcome.places)
    looked_at, assigned = outcome.places >= 0, outcome.fates >= 0
    fates, reasons = (rows[name].to_numpy(object, copy=True) for name in ("fate", "reason"))
    fates[looked_at], reasons[looked_at] = facts.loc[looked_at, "fate"], facts.loc[looked_at, "reason"]
    for place in np.flatnonzero(assigned):
        fate, number = outcome.fates[place], outcome.numbers[place]
        fates[place], reasons[place] = ASSIGNED[fate], ""
        if fate in (TAKEN, OTHER_CLASS):
            reasons[place] = f"used for {names[number]}"
        elif fate == DUPLICATE:
            reasons[place] = f"of {number}"
    scored = facts["aesthetic"].notna().to_numpy()
    aesthetic = np.where(scored, facts["aesthetic"].to_numpy(float), rows["aesthetic"].to_numpy(float))
    sha256 = facts["sha256"].where(facts["sha256"].notna(), None).to_numpy(object)
    ours = {"class": key, "rank": range(len(rows)), "fate": fates, "reason": reasons, "aesthetic": aesthetic}
    bytes_of = {name: facts[name].array for name in ("path", "offset", "length")}
    link = np.where(rows["path"].isna(), outcome.places, -1)
    return rows.assign(**ours, sha256=sha256, **bytes_of, link=link)
