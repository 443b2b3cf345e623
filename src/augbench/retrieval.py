"""Retrieval, the paper's baseline: nearest neighbours of a class's prompt in CLIP space, downloaded and filtered."""

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from augbench import fetching, images
from augbench.backbone import SafetyChecker
from augbench.files import whole
from augbench.prompts import fill, templates

FATES = {  # what became of a neighbour, in the order in which it is found out
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
    "used": "good and among the most similar",
}
LEDGER = ["class", "rank", "id", "similarity", "url", "caption", "aesthetic", "fate", "reason", "sha256"]
AT_A_TIME = 64  # pictures in memory
KEPT_AS_THEY_CAME = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def retrieve(
    wanted: pd.DataFrame,
    source,
    checker: SafetyChecker,
    work: str | Path,
    ledger: str | Path,
    shard: str | Path,
    table: str | Path,
    *,
    overfetch: float,
    overfetch_max: float,
    min_aesthetic: float,
    duplicate_threshold: float,
    min_image_size: int,
    max_image_size: int,
    max_pixels: int,
    fetch: Mapping,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Retrieve images for each class (paper, section 3.1, "Laion nearest neighbor retrieval").

    Neighbours asked for grow from ``overfetch`` x n, doubling, to ``overfetch_max`` x n, for classes that
    are still short only. What was downloaded is kept in ``work``, so a repeated run goes on, and one that wants
    more uses it again.

    Parameters
    ----------
    wanted : columns class, prompt, count
    source : where neighbours come from, see :mod:`augbench.neighbours`
    ledger : Parquet of every neighbour ever considered: LEDGER; fate is a key of FATES
    shard, table : the good images of all classes and their image table, by class and similarity. Images are kept
        as they came if every reader takes them so and they are not too large, else encoded again.
    min_image_size, max_image_size : pixels of the shorter and the longer side; larger ones are scaled down
    max_pixels : images with more are not decoded
    fetch : how to download, the settings of :func:`augbench.fetching.fetch`
    """
    factors = [overfetch]
    while factors[-1] < overfetch_max:
        factors.append(min(2 * factors[-1], overfetch_max))
    found: dict[str, pd.DataFrame] = {}
    known: dict[str, dict] = {}  # url -> fate, reason, and where its bytes are
    short = wanted
    for turn, factor in enumerate(factors):
        counts = [math.ceil(factor * count - 1e-9) for count in short["count"]]
        tables = source.neighbours(list(short["prompt"]), counts, duplicate_threshold)
        for key, rows in zip(short["class"], tables, strict=True):
            found[key] = _before_download(rows, min_aesthetic)
        fresh = {url for key in short["class"] for url in found[key].loc[found[key]["fate"] == "", "url"]} - set(known)
        fetched = fetching.fetch(sorted(fresh), work, **fetch)
        known |= {row["url"]: row for row in _judged(fetched, checker, min_image_size, max_pixels, progress)}
        outcome = settle(found, known, dict(zip(wanted["class"], wanted["count"], strict=True)))
        have = outcome[outcome["fate"] == "used"].groupby("class").size()
        short = wanted[[have.get(key, 0) < n for key, n in zip(wanted["class"], wanted["count"], strict=True)]]
        progress(turn + 1, len(factors), f"rounds: {len(wanted) - len(short)} of {len(wanted)} classes filled")
        if short.empty:
            break
    _write_good(outcome[outcome["fate"].isin(["used", "spare"])], known, max_image_size, max_pixels, shard, table)
    with whole(ledger) as temporary:
        outcome[LEDGER].to_parquet(temporary, index=False)


def _before_download(rows: pd.DataFrame, min_aesthetic: float) -> pd.DataFrame:
    """Neighbours with fate and reason as far as these are known without a download, else empty."""
    fates, reasons = [], []
    for row in rows.itertuples():
        fate, reason = "", ""
        if row.aesthetic < min_aesthetic:
            fate, reason = "unaesthetic", f"{row.aesthetic:g}"
        elif pd.notna(row.duplicate_of):
            fate, reason = "duplicate", f"of {row.duplicate_of}" if row.duplicate_of >= 0 else ""
        elif not isinstance(row.url, str):
            fate, reason = "dead", "no URL is known"
        fates.append(fate)
        reasons.append(reason)
    return rows.assign(fate=fates, reason=reasons)


def _judged(fetched: pd.DataFrame, checker, min_size: int, max_pixels: int, progress) -> list[dict]:
    """Rows of :func:`augbench.fetching.fetch` whose fate is final, or ``good``; some pictures at a time."""
    rows = fetched.to_dict("records")
    for start in range(0, len(rows), AT_A_TIME):
        pictures, judged = [], []
        for row in rows[start : start + AT_A_TIME]:
            if row["fate"] != "fetched":
                continue
            try:
                picture = images.decode(images.load_bytes(pd.Series(row)), row["url"], max_pixels)
            except ValueError as error:
                row["fate"] = "too large" if "too many pixels" in str(error) else "unreadable"
                row["reason"] = str(error).removeprefix(f"cannot read {row['url']}: ")[:200]
                continue
            if min(picture.size) < min_size:
                row["fate"], row["reason"] = "too small", f"{picture.width} x {picture.height}"
                continue
            pictures.append(picture)
            judged.append(row)
        for row, refused in zip(judged, checker.unsafe(pictures), strict=True):
            row["fate"] = "unsafe" if refused else "good"
        progress(min(start + AT_A_TIME, len(rows)), len(rows), "downloads judged")
    return rows


def settle(found: Mapping[str, pd.DataFrame], known: Mapping[str, Mapping], counts: Mapping[str, int]) -> pd.DataFrame:
    """The ledger: every neighbour of every class with its final fate.

    Good images go to the class to which they are most similar, ties to the earlier class, as long as that wants
    more; no image, told by its bytes, is used twice.
    """
    tables = []
    for place, (key, rows) in enumerate(found.items()):
        facts = [known.get(url, {}) if fate == "" else {} for url, fate in zip(rows["url"], rows["fate"], strict=True)]
        tables.append(
            rows.assign(
                **{"class": key, "rank": range(len(rows)), "place": place},
                fate=[fact.get("fate") or fate for fact, fate in zip(facts, rows["fate"], strict=True)],
                reason=[fact.get("reason") or reason for fact, reason in zip(facts, rows["reason"], strict=True)],
                sha256=[fact.get("sha256") for fact in facts],
            )
        )
    ledger = pd.concat(tables, ignore_index=True)
    good = ledger[ledger["fate"] == "good"].sort_values(["similarity", "place", "rank"], ascending=[False, True, True])
    owner: dict[str, tuple[str, int]] = {}  # sha256 -> class and id of the image that is used
    used = dict.fromkeys(counts, 0)
    fates, reasons, spare = ledger["fate"].tolist(), ledger["reason"].tolist(), []
    for row in good[["class", "id", "sha256"]].itertuples():
        key = row[1]
        if row.sha256 in owner:
            fate = _taken(owner[row.sha256], key)
        elif used[key] < counts[key]:
            owner[row.sha256], fate = (key, row.id), ("used", "")
            used[key] += 1
        else:
            spare.append(row)
            continue
        fates[row.Index], reasons[row.Index] = fate
    for row in spare:
        fates[row.Index], reasons[row.Index] = _taken(owner.get(row.sha256), row[1]) or ("spare", "")
    return ledger.assign(fate=fates, reason=reasons).drop(columns="place")


def _taken(owner: tuple[str, int] | None, key: str) -> tuple[str, str] | None:
    """Fate and reason of an image for class ``key`` when its bytes are used as ``owner`` (class and id)."""
    if owner is None:
        return None
    return ("duplicate", f"of {owner[1]}") if owner[0] == key else ("other class", f"used for {owner[0]}")


def counts(table: pd.DataFrame, images_per_class: int | None, ratio: float) -> dict[str, int]:
    """Images to retrieve per class: ``images_per_class``, or as many as it has training images where that is
    more, times the largest augmentation ratio. ``table``: image table with the column ``split``."""
    training = table[table["split"] == "train"].groupby("class").size()
    return {key: math.ceil(ratio * max(images_per_class or 0, count)) for key, count in training.items()}


def wanted(classes: pd.DataFrame, counts: dict[str, int], conditioning: str) -> pd.DataFrame:
    """What to retrieve, columns class, prompt, count, for a class table and the template of a conditioning."""
    template = templates(conditioning)[0]
    rows = [(row["class"], fill(template, row), counts[row["class"]]) for row in classes.to_dict("records")]
    return pd.DataFrame(rows, columns=["class", "prompt", "count"])


def shortfall(ledger: pd.DataFrame, counts: dict[str, int]) -> dict[str, str]:
    """Classes that cannot be filled, with a sentence each; they are excluded for every method (paper, section 3)."""
    used = ledger[ledger["fate"] == "used"].groupby("class").size()
    return {
        key: f"retrieval found {used.get(key, 0)} of {count} images"
        for key, count in counts.items()
        if used.get(key, 0) < count
    }


def _encoded(data: bytes, max_image_size: int, max_pixels: int) -> tuple[str, bytes]:
    """Extension and bytes of an image as it is kept."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        simple = opened.mode in ("RGB", "L") and getattr(opened, "n_frames", 1) == 1
        extension = KEPT_AS_THEY_CAME.get(opened.format)
        if simple and extension and max(opened.size) <= max_image_size:
            return extension, data
    picture = images.decode(data, max_pixels=max_pixels)
    picture.thumbnail((max_image_size, max_image_size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    return "jpg", buffer.getvalue()


def _write_good(
    good: pd.DataFrame,
    known: Mapping[str, Mapping],
    max_image_size: int,
    max_pixels: int,
    shard: str | Path,
    table: str | Path,
) -> None:
    rows = []
    number = {key: i for i, key in enumerate(dict.fromkeys(good["class"]))}
    with whole(shard) as temporary, images.ShardWriter(temporary) as writer:
        for row in good.to_dict("records"):
            bytes_of = images.load_bytes(pd.Series(known[row["url"]]))
            extension, data = _encoded(bytes_of, max_image_size, max_pixels)
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
