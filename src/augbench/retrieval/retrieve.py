"""Retrieval, the paper's baseline: nearest neighbours of a class's prompt in CLIP space, downloaded and filtered."""

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from augbench import images
from augbench.core.files import whole, write_csv
from augbench.digits import server
from augbench.models import aesthetics, clip
from augbench.models.backbones import safety_checker
from augbench.retrieval import download, index, search, service
from augbench.retrieval.inspection import Inspection
from augbench.retrieval.ledger import LEDGER, assign_images, before_download, count_fates
from augbench.study import classes
from augbench.study.sections.retrieval import Pool, Retrieval


class Outputs(NamedTuple):
    """Paths that a retrieval writes.

    ledger : Parquet of every neighbour ever considered: LEDGER; fate is a key of FATES
    shard, images : the used images of all classes and their image table, by class and rank. Images keep their bytes if
        every reader takes them so and they are not too large, else they are encoded again.
    funnel : CSV of :func:`augbench.retrieval.ledger.count_fates`
    """

    ledger: str | Path
    shard: str | Path
    images: str | Path
    funnel: str | Path


def retrieve(
    wanted: pd.DataFrame,
    searched: search.CachedSearch,
    fetch: Callable[[list[str]], pd.DataFrame],
    inspection: Inspection,
    outputs: Outputs,
    settings: Retrieval,
    *,
    main: pd.DataFrame | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Retrieve images for each class (paper, section 3.1, "Laion nearest neighbor retrieval").

    The number of neighbours to ask for grows from ``overfetch`` x n, doubling, to ``overfetch_max`` x n, for classes
    that are short only: also for one that was full, and lost images to another class since. Searches and downloads are
    cached, so a repeated run resumes, and one that wants more uses them again.

    Parameters
    ----------
    wanted : columns class, query (see :mod:`augbench.retrieval.index`), count (n)
    fetch : gives fate, reason and bytes of URLs, as :func:`augbench.retrieval.download.fetch` does
    main : for more than the ``main`` ratio wants: its ledger. What it used stays used, and is not used again; only the
        further images, up to the count, are retrieved

    Raises ValueError when scores are wanted and the source knows none.
    """
    taken = main[main["fate"] == "used"] if main is not None else pd.DataFrame(columns=LEDGER)
    counts = dict(zip(wanted["class"], wanted["count"], strict=True))
    missing = {key: count - int((taken["class"] == key).sum()) for key, count in counts.items()}
    queries = dict(zip(wanted["class"], wanted["query"], strict=True))
    factors = _factors(settings)
    known: dict[str, dict] = {}  # address -> fate, reason, and where its bytes are
    neighbours: dict[str, pd.DataFrame] = {}
    turns = dict.fromkeys(counts, 0)  # searches of each class so far
    short = list(counts)
    while due := [key for key in short if turns[key] < len(factors)]:
        tables = searched.neighbours(
            [queries[key] for key in due],
            [_times(factors[turns[key]], counts[key]) for key in due],
            [_times(settings.overfetch_max, counts[key]) for key in due],
            progress,
        )
        if inspection.known_score is not None:
            _check_scores(tables)
        for key, rows in zip(due, tables, strict=True):
            neighbours[key] = before_download(rows, inspection.known_score, taken)
            turns[key] += 1
        fresh = pd.concat([neighbours[key][neighbours[key]["fate"] == ""] for key in due]).drop_duplicates("address")
        fresh = fresh[~fresh["address"].isin(known.keys())]
        known |= {row["address"]: row for row in inspection(_bytes_of(fresh, fetch), progress)}
        outcome = assign_images(neighbours, known, missing, taken)
        have = outcome[outcome["fate"] == "used"].groupby("class").size()
        short = [key for key, count in missing.items() if have.get(key, 0) < count]
        progress(len(counts) - len(short), len(counts), "classes filled")
    _write_used(outcome[outcome["fate"] == "used"], known, settings, outputs.shard, outputs.images)
    with whole(outputs.ledger) as temporary:
        outcome[LEDGER].to_parquet(temporary, index=False)
    write_csv(outputs.funnel, count_fates(outcome, counts))


def _factors(settings: Retrieval) -> list[float]:
    """Neighbours asked for at each search, as multiples of the images wanted."""
    factors = [settings.overfetch]
    while factors[-1] < settings.overfetch_max:
        factors.append(min(2 * factors[-1], settings.overfetch_max))
    return factors


def _times(factor: float, count: int) -> int:
    return math.ceil(factor * count - 1e-9)  # 1.4 x 5 is 7, whatever the low bits say


def _bytes_of(rows: pd.DataFrame, fetch: Callable[[list[str]], pd.DataFrame]) -> pd.DataFrame:
    """Fate, reason, and place of the bytes of neighbours, by address; downloads those that lie nowhere here."""
    here = rows["path"].notna()
    local = rows[here][["address", "path", "offset", "length"]].assign(fate="fetched", reason="")
    local["sha256"] = [hashlib.sha256(images.load_bytes(row)).hexdigest() for row in local.itertuples()]
    web = fetch(sorted(rows.loc[~here, "address"])).rename(columns={"url": "address"})
    return pd.concat([part for part in (local, web) if len(part)] or [web], ignore_index=True)


def _check_scores(tables: Sequence[pd.DataFrame]) -> None:
    """Raise ValueError when not one neighbour has an aesthetic score."""
    if any(len(rows) for rows in tables) and all(rows["aesthetic"].isna().all() for rows in tables):
        raise ValueError(
            "no image of the pool has an aesthetic score, by which retrieval.min_aesthetic could discard it; name a "
            "model that scores pictures, `retrieval: {aesthetic_model: HEAD.pth}`, or write `min_aesthetic: null` to "
            "take images whatever their score"
        )


def _write_used(
    used: pd.DataFrame,
    known: Mapping[str, Mapping],
    settings: Retrieval,
    shard: str | Path,
    table: str | Path,
) -> None:
    rows = []
    number = {key: i for i, key in enumerate(dict.fromkeys(used["class"]))}
    with whole(shard) as temporary, images.ShardWriter(temporary) as writer:
        for row in used.to_dict("records"):
            bytes_of = images.load_bytes(pd.Series(known[row["address"]]))
            extension, data = images.portable(bytes_of, settings.max_image_size, settings.max_pixels)
            facts = {"class": row["class"], "url": row["url"], "sha256": row["sha256"]}
            members = {extension: data, "txt": row["caption"] or "", "json": facts}
            # By number: neither a class's name nor anything from the web is a part of a file's name.
            offset, length = writer.add(f"{number[row['class']]:04d}-{row['rank']:06d}", members, image=extension)
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


# --- the job: a method's retrieval from a study's pool ---------------------------------------------------


class Inputs(NamedTuple):
    """Files that a method's retrieval reads.

    classes, images : class table and all images of the target, before retrieval says which classes stay
    safety : folder of the safety checker, if there is one
    index : of a clip-retrieval folder, unless a service is asked
    head : of aesthetic scores, for pictures; web : image table of the built-in web
    kept, main : of more than the main ratio: class table with what is excluded, and the main ratio's ledger
    """

    classes: str | Path
    images: str | Path
    safety: str | Path | None = None
    index: str | Path | None = None
    head: str | Path | None = None
    web: str | Path | None = None
    kept: str | Path | None = None
    main: str | Path | None = None


def retrieve_method(
    name: str,
    method: Mapping,
    pool: Pool,
    settings: Retrieval,
    clip_model: str,
    ratio: float,
    inputs: Inputs,
    outputs: Outputs,
    progress: Callable[[int, int, str], None],
) -> None:
    """Retrieve a method's images at an augmentation ratio, see :func:`retrieve`.

    ``method`` is its row of the method table: of it count conditioning, query and diversity. Searches and downloads are
    cached beside the folders of the study's methods: another method's search finds many of the same images.
    """
    work = Path(outputs.funnel).parents[2 if inputs.main else 1]
    target = images.read(inputs.images, extra=["split"])
    table = pd.read_csv(inputs.classes, dtype=str, keep_default_na=False)
    if inputs.kept:  # what the main ratio could not fill takes no part
        table = table[table["class"].isin([row["class"] for row in classes.kept(inputs.kept)])]
    prompts = search.prompts(table, method["conditioning"])
    model = clip.Clip(clip_model) if inputs.head or needs_clip(pool, method["query"], prompts) else None
    counts = classes.retrieved(target, settings.images_per_class, ratio)
    asked = _queries(target, table["class"], prompts, method["query"], model, progress)
    source = _open_source(pool, inputs.index, model, work / "neighbours")
    score = aesthetics.of_pictures(inputs.head, model) if inputs.head else None
    with _served(inputs.web) as proxy:
        retrieve(
            pd.DataFrame({"class": table["class"], "query": asked, "count": table["class"].map(counts)}),
            search.CachedSearch(source, work / "neighbours", settings.duplicate_threshold, method["diversity"]),
            functools.partial(download.fetch, work=work / "downloads", settings=settings, owner=name, proxy=proxy),
            Inspection(safety_checker(inputs.safety), settings, score),
            outputs,
            settings,
            main=pd.read_parquet(inputs.main) if inputs.main else None,
            progress=progress,
        )


def needs_clip(pool: Pool, query: str, prompts: Sequence[Sequence[str]]) -> bool:
    """Whether a query is embedded here: a service does so itself with a single text."""
    return not pool.source.is_remote or query == "text_and_images" or any(len(texts) > 1 for texts in prompts)


def _queries(target: pd.DataFrame, keys: Sequence[str], prompts: Sequence, query: str, model, progress) -> list:
    """What to search for, for each class; ``target`` is the image table with the column split."""
    asked = []
    for key, texts in zip(keys, prompts, strict=True):
        mine = target[(target["split"] == "train") & (target["class"] == key)]
        vectors = clip.embed(mine, model.pictures, progress) if query == "text_and_images" else None
        asked.append(search.query(texts, vectors, model))
    return asked


def _open_source(pool: Pool, folder: str | Path | None, model, work: Path):
    """What answers queries: a service, or the index in ``folder``."""
    if pool.source.is_remote:
        return service.Service(pool.url, pool.index, pause=pool.pause, timeout=pool.timeout)
    return index.LocalIndex(folder, model, work, places=pool.source.is_local)


@contextlib.contextmanager
def _served(web: str | Path | None) -> Iterator[str | None]:
    """The address of a proxy that serves the pictures of an image table, for as long as the block lasts; or None."""
    if web is None:
        yield None
        return
    with server.serve(images.read(web)) as proxy:
        yield proxy
