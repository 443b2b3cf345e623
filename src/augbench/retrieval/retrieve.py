"""Retrieval, the paper's baseline: nearest neighbours of a class's prompt in CLIP space, downloaded and filtered."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core.files import whole, write_csv
from augbench.models.backbones import SafetyChecker
from augbench.retrieval import download
from augbench.study.prompts import fill, usable

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
AT_A_TIME = 64  # pictures in memory


def retrieve(
    wanted: pd.DataFrame,
    source,
    checker: SafetyChecker,
    work: str | Path,
    ledger: str | Path,
    shard: str | Path,
    table: str | Path,
    funnel: str | Path,
    *,
    overfetch: float,
    overfetch_max: float,
    min_aesthetic: float | None,
    duplicate_threshold: float,
    min_image_size: int,
    max_image_size: int,
    max_pixels: int,
    fetch: Mapping,
    diversity: float = 0.0,
    score: Callable[[list], Sequence[float]] | None = None,
    main: pd.DataFrame | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Retrieve images for each class (paper, section 3.1, "Laion nearest neighbor retrieval").

    Neighbours asked for grow from ``overfetch`` x n, doubling, to ``overfetch_max`` x n, for classes that are short
    only: also for one that was full, and lost images to another class since. Searches and downloads are cached in
    ``work``, so a repeated run goes on, and one that wants more uses them again.

    Parameters
    ----------
    wanted : columns class, query (see :mod:`augbench.retrieval.index`), count (n)
    source : where neighbours come from, see :mod:`augbench.retrieval.index`
    ledger : Parquet of every neighbour ever considered: LEDGER; fate is a key of FATES
    shard, table : the used images of all classes and their image table, by class and rank. Images are kept
        as they came if every reader takes them so and they are not too large, else encoded again.
    funnel : CSV of :func:`count_fates`
    min_image_size, max_image_size : pixels of the shorter and the longer side; larger ones are scaled down
    max_pixels : images with more are not decoded
    fetch : how to download, the settings of :func:`augbench.retrieval.download.fetch`
    min_aesthetic : images with a lower aesthetic score are discarded; None: whatever their score
    diversity : 0, the most similar images; above, the best by maximal marginal relevance
    score : gives pictures their aesthetic scores, which then count instead of those that the source knows
    main : for more than the ``main`` ratio wants: its ledger. What it used stays used, and is not used again; only the
        further images, up to the count, are retrieved

    Raises ValueError when scores are wanted and the source knows none.
    """
    factors = [overfetch]
    while factors[-1] < overfetch_max:
        factors.append(min(2 * factors[-1], overfetch_max))
    taken = main[main["fate"] == "used"] if main is not None else pd.DataFrame(columns=LEDGER)
    counts = dict(zip(wanted["class"], wanted["count"], strict=True))
    missing = {key: count - int((taken["class"] == key).sum()) for key, count in counts.items()}
    asked = wanted.set_index("class")
    known: dict[str, dict] = {}  # address -> fate, reason, and where its bytes are
    found: dict[str, pd.DataFrame] = {}
    turns = dict.fromkeys(counts, 0)  # searches of each class so far
    short = list(counts)
    while due := [key for key in short if turns[key] < len(factors)]:
        tables = _search(
            source,
            Path(work) / "neighbours",
            list(asked.loc[due, "query"]),
            [_times(factors[turns[key]], counts[key]) for key in due],
            threshold=duplicate_threshold,
            diversity=diversity,
            of=[_times(overfetch_max, counts[key]) for key in due] if diversity else [],
            progress=progress,
        )
        min_known = min_aesthetic if score is None else None  # pictures are scored once they are here
        if min_known is not None:
            _check_scores(tables)
        for key, rows in zip(due, tables, strict=True):
            found[key] = _before_download(rows, min_known, taken)
            turns[key] += 1
        fresh = pd.concat([found[key][found[key]["fate"] == ""] for key in due]).drop_duplicates("address")
        fresh = fresh[~fresh["address"].isin(known.keys())]
        fetched = _bytes_of(fresh, Path(work) / "downloads", fetch)
        judge = _Judge(checker, min_image_size, max_pixels, score, min_aesthetic)
        known |= {row["address"]: row for row in judge(fetched, progress)}
        outcome = settle(found, known, missing, taken)
        have = outcome[outcome["fate"] == "used"].groupby("class").size()
        short = [key for key, count in missing.items() if have.get(key, 0) < count]
        progress(len(counts) - len(short), len(counts), "classes filled")
    _write_used(outcome[outcome["fate"] == "used"], known, max_image_size, max_pixels, shard, table)
    with whole(ledger) as temporary:
        outcome[LEDGER].to_parquet(temporary, index=False)
    write_csv(funnel, count_fates(outcome, counts))


def count_fates(ledger: pd.DataFrame, counts: Mapping[str, int]) -> pd.DataFrame:
    """What became of the neighbours of each class: columns class, wanted, considered, and one for each of FATES."""
    found = ledger.groupby(["class", "fate"]).size().unstack(fill_value=0)
    found = found.reindex(index=list(counts), columns=list(FATES), fill_value=0)
    found.insert(0, "considered", found.sum(axis=1))
    found.insert(0, "wanted", list(counts.values()))
    return found.rename_axis("class").rename_axis(None, axis=1).reset_index()


def _times(factor: float, count: int) -> int:
    return math.ceil(factor * count - 1e-9)  # 1.4 x 5 is 7, whatever the low bits say


def _search(source, kept: Path, queries: list, counts: list[int], *, threshold, diversity, of, progress) -> list:
    """The tables of ``source.neighbours``; each is kept as a file as soon as it is there, for a killed job."""
    settings = [source.identity, threshold, diversity]
    paths = []
    for place, (query, count) in enumerate(zip(queries, counts, strict=True)):
        asked = query if isinstance(query, str) else query.tolist()
        facts = [*settings, asked, count, of[place] if of else None]
        paths.append(kept / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.parquet")
    left = [place for place, path in enumerate(paths) if not path.exists()]
    answers = source.neighbours(
        [queries[place] for place in left],
        [counts[place] for place in left],
        threshold,
        diversity=diversity,
        of=[of[place] for place in left] if of else [],
    )
    for number, (place, rows) in enumerate(zip(left, answers if left else (), strict=True)):
        with whole(paths[place]) as temporary:
            rows.to_parquet(temporary, index=False)
        progress(number + 1, len(left), "queries answered")
    return [pd.read_parquet(path) for path in paths]


def _bytes_of(rows: pd.DataFrame, folder: Path, fetch: Mapping) -> pd.DataFrame:
    """Fate, reason, and place of the bytes of neighbours, by address; downloads those that lie nowhere here."""
    here = rows["path"].notna()
    local = rows[here][["address", "path", "offset", "length"]].assign(fate="fetched", reason="")
    local["sha256"] = [hashlib.sha256(images.load_bytes(row)).hexdigest() for row in local.itertuples()]
    web = download.fetch(sorted(rows.loc[~here, "address"]), folder, **fetch).rename(columns={"url": "address"})
    return pd.concat([part for part in (local, web) if len(part)] or [web], ignore_index=True)


def _check_scores(tables: Sequence[pd.DataFrame]) -> None:
    """Raise ValueError when not one neighbour has an aesthetic score."""
    if any(len(rows) for rows in tables) and all(rows["aesthetic"].isna().all() for rows in tables):
        raise ValueError(
            "no image of the pool has an aesthetic score, by which retrieval.min_aesthetic could discard it; name a "
            "model that scores pictures, `retrieval: {aesthetic_model: HEAD.pth}`, or write `min_aesthetic: null` to "
            "take images whatever their score"
        )


def _before_download(rows: pd.DataFrame, min_aesthetic: float | None, taken: pd.DataFrame) -> pd.DataFrame:
    """Neighbours with their address, and fate and reason as far as known without a download, else empty.

    An image's address is its place on this machine, else its URL. ``taken`` are rows of the main ratio's ledger that it
    used: neither they nor their duplicates are used again.
    """
    owners = dict(zip(taken["id"], taken["class"], strict=True))
    first = rows["duplicate_of"].fillna(rows["id"])  # of a group of duplicates
    used = {group: image for group, image in zip(first, rows["id"], strict=True) if image in owners and group >= 0}
    addresses, fates, reasons = [], [], []
    for row, group in zip(rows.itertuples(), first, strict=True):
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


class _Judge:
    """Finds out whether what was fetched are pictures that may be used."""

    def __init__(
        self, checker, min_size: int, max_pixels: int, score: Callable | None = None, min_aesthetic: float | None = None
    ):
        self.checker, self.min_size, self.max_pixels = checker, min_size, max_pixels
        self.score, self.min_aesthetic = score, min_aesthetic

    def __call__(self, fetched: pd.DataFrame, progress: Callable) -> list[dict]:
        """Rows of :func:`_bytes_of` whose fate is final, or ``good``; some pictures at a time."""
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
            picture = images.decode(images.load_bytes(pd.Series(row)), row["address"], self.max_pixels)
        except ValueError as error:
            row["fate"] = "too large" if "too many pixels" in str(error) else "unreadable"
            row["reason"] = str(error).removeprefix(f"cannot read {row['address']}: ")[:200]
            return None
        if min(picture.size) < self.min_size:
            row["fate"], row["reason"] = "too small", f"{picture.width} x {picture.height}"
            return None
        return picture

    def _aesthetic(self, pairs: list[tuple[dict, object]]) -> list[tuple[dict, object]]:
        """The pairs whose picture scores enough; notes the scores in the rows."""
        if self.score is None or self.min_aesthetic is None or not pairs:
            return pairs
        for (row, _), value in zip(pairs, self.score([picture for _, picture in pairs]), strict=True):
            row["aesthetic"] = float(value)
            if not value >= self.min_aesthetic:
                row["fate"], row["reason"] = "unaesthetic", f"{value:g}"
        return [(row, picture) for row, picture in pairs if row["fate"] != "unaesthetic"]


def settle(
    found: Mapping[str, pd.DataFrame],
    known: Mapping[str, Mapping],
    counts: Mapping[str, int],
    taken: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The ledger: every neighbour of every class with its final fate.

    Each class takes the best of its good images, by rank. No image, told by its bytes, is used twice: of the
    classes that want it, the one to which it is most similar has it, ties to the earlier class, and the others
    take the next. (Stable matching, classes proposing; the outcome does not depend on the order of classes.) What is
    ``taken`` (columns class, sha256) stays with its class.
    """
    owners = dict(zip(taken["sha256"], taken["class"], strict=True)) if taken is not None else {}

    def facts_of(address: str, fate: str) -> Mapping:
        fact = known.get(address, {}) if fate == "" else {}
        if fact.get("fate") == "good" and fact["sha256"] in owners:
            return fact | {"fate": "taken", "reason": f"used for {owners[fact['sha256']]}"}
        return fact

    tables = []
    for place, (key, rows) in enumerate(found.items()):
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
    ledger = pd.concat([rows for rows in tables if len(rows)] or tables[:1], ignore_index=True)
    good = ledger.loc[ledger["fate"] == "good", ["class", "place", "id", "similarity", "sha256"]]
    offers = {key: list(rows.itertuples()) for key, rows in good.groupby("class", sort=False)}  # by rank
    owner = _matched(offers, counts)
    fates, reasons = ledger["fate"].tolist(), ledger["reason"].tolist()
    for key, rows in offers.items():
        for row in rows:
            fates[row.Index], reasons[row.Index] = _fate(row, key, owner.get(row.sha256))
    return ledger.assign(fate=fates, reason=reasons).drop(columns="place")


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


def counts(table: pd.DataFrame, images_per_class: int | None, ratio: float) -> dict[str, int]:
    """Images to retrieve per class: ``images_per_class``, or as many as it has training images where that is
    more, times the augmentation ratio. ``table``: image table with the column ``split``."""
    training = table[table["split"] == "train"].groupby("class").size()
    return {key: math.ceil(ratio * max(images_per_class or 0, count)) for key, count in training.items()}


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

    found = _mean(clip.texts(texts))
    return found if pictures is None else _mean(np.stack([found, _mean(pictures)]))


def _mean(vectors):
    """The direction of the mean of unit vectors (n, width), float32 (width,)."""
    import numpy as np

    mean = vectors.mean(0)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


def shortfall(ledgers: Mapping[str, pd.DataFrame], counts: Mapping[str, int]) -> dict[str, str]:
    """Classes that cannot be filled, with a sentence each; they are excluded for every method (paper, section 3).

    ``ledgers``: title of each retrieval method of the study -> its ledger.
    """
    short: dict[str, str] = {}
    for title, ledger in ledgers.items():
        used = ledger[ledger["fate"] == "used"].groupby("class").size()
        for key, count in counts.items():
            if used.get(key, 0) < count:
                short.setdefault(key, f"{title} found {used.get(key, 0)} of {count} images")
    return {key: short[key] for key in counts if key in short}


def _write_used(
    used: pd.DataFrame,
    known: Mapping[str, Mapping],
    max_image_size: int,
    max_pixels: int,
    shard: str | Path,
    table: str | Path,
) -> None:
    rows = []
    number = {key: i for i, key in enumerate(dict.fromkeys(used["class"]))}
    with whole(shard) as temporary, images.ShardWriter(temporary) as writer:
        for row in used.to_dict("records"):
            bytes_of = images.load_bytes(pd.Series(known[row["address"]]))
            extension, data = images.portable(bytes_of, max_image_size, max_pixels)
            facts = {"class": row["class"], "url": row["url"], "sha256": row["sha256"]}
            members = {extension: data, "txt": row["caption"] or "", "json": facts}
            # By number: neither a class's name nor anything from the web is a part of a file's name.
            offset, length = writer.add(f"{number[row['class']]:04d}-{row['rank']:06d}", members, of=extension)
            rows.append(
                {
                    "image_id": f"retrieval/{row['class']}/{row['id']}",
                    "class": row["class"],
                    "path": str(shard),
                    "offset": offset,
                    "length": length,
                    "url": row["url"],
                    "similarity": row["similarity"],
                    "sha256": row["sha256"],
                }
            )
    images.write(table, images.table(rows))
