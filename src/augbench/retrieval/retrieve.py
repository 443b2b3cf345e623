"""Retrieval, the paper's baseline: nearest neighbours of a class's prompt in CLIP space, downloaded and filtered."""

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from augbench import images
from augbench.core import processes, resume
from augbench.core.files import whole, write_csv
from augbench.digits import server
from augbench.models import aesthetics, clip
from augbench.models.backbones import safety_checker
from augbench.retrieval import download, faces, hosts, index, scan, search, service
from augbench.retrieval.captions import Captions
from augbench.retrieval.inspection import Inspection
from augbench.retrieval.ledger import (
    LEDGER,
    LICENCE,
    Known,
    Outcome,
    Ranked,
    assign_images,
    before_download,
    class_names,
    count_fates,
    final_rows,
    schema,
)
from augbench.study import classes
from augbench.study.methods import Method
from augbench.study.queries import Query
from augbench.study.sections.retrieval import Pool, Retrieval

AT_ONCE = 100_000  # neighbours with their texts and verdicts in memory: less than 1 GB


class Outputs(NamedTuple):
    """Paths that a retrieval writes.

    ledger : Parquet of every neighbour ever considered: LEDGER, and its licence where the pool states licences; fate is
        a key of FATES
    shard, images : the used images of all classes and their image table, by class and rank. Images keep their bytes if
        every reader takes them so and they are not too large, else they are encoded again.
    funnel : CSV of :func:`augbench.retrieval.ledger.count_fates`
    hosts : CSV of :class:`augbench.retrieval.hosts.Hosts`
    """

    ledger: str | Path
    shard: str | Path
    images: str | Path
    funnel: str | Path
    hosts: str | Path


def retrieve(
    wanted: pd.DataFrame,
    searched: search.CachedSearch,
    fetch: Callable[[list[str]], Iterable[pd.DataFrame]],
    inspection: Inspection,
    outputs: Outputs,
    settings: Retrieval,
    *,
    main: pd.DataFrame | None = None,
    licences: Sequence[str] | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Retrieve images for each class (paper, section 3.1, "Laion nearest neighbor retrieval").

    The number of neighbours to ask for grows from ``overfetch`` x n, doubling, to ``overfetch_max`` x n, for classes
    that are short only: also for one that was full, and lost images to another class since. Searches and downloads are
    cached, so a repeated run resumes, and one that wants more uses them again. While pictures are judged, the next are
    downloaded.

    Parameters
    ----------
    wanted : columns class, query (see :mod:`augbench.retrieval.index`), count (n) and, where captions are matched,
        names: what they call the class
    fetch : gives fate, reason and bytes of URLs, as :func:`augbench.retrieval.download.fetch_in_turn` does
    main : for more than the ``main`` ratio wants: class, id and sha256 of the images that it used. They stay used, and
        are not used again; only the further images, up to the count, are retrieved
    licences : of images that may be used; None: whatever their licence

    Raises ValueError when scores or licences are wanted and the source knows none.
    """
    counts = dict(zip(wanted["class"], wanted["count"], strict=True))
    used = main["class"].value_counts() if main is not None else {}
    missing = {key: count - int(used.get(key, 0)) for key, count in counts.items()}
    queries = dict(zip(wanted["class"], wanted["query"], strict=True))
    names = dict(zip(wanted["class"], wanted["names"], strict=True)) if "names" in wanted else {}
    factors = _factors(settings)
    neighbours = _Neighbours(inspection.known_score, main, licences)
    turns = dict.fromkeys(counts, 0)  # searches of each class so far
    short = [key for key, count in counts.items() if count > 0]
    while due := [key for key in short if turns[key] < len(factors)]:
        answers = searched.neighbours(
            [queries[key] for key in due],
            [_times(factors[turns[key]], counts[key]) for key in due],
            [_times(settings.overfetch_max, counts[key]) for key in due],
            progress,
            [names.get(key, ()) for key in due],
        )
        if inspection.known_score is not None:
            _check_scores(answers)
        if licences is not None:
            _check_licences(answers)
        for key, answer in zip(due, answers, strict=True):
            neighbours.add(key, answer)
            turns[key] += 1
        for fresh in neighbours.fresh(due):
            judged = inspection(processes.ahead(_bytes_of(fresh, fetch)), len(fresh), progress)
            neighbours.known.add(judged)
        outcomes = neighbours.assign(missing)
        short = [key for key, outcome in outcomes.items() if outcome.used.sum() < missing[key]]
        progress(len(counts) - len(short), len(counts), "classes filled")
    sizes = _write_results(neighbours.ledger_rows(outcomes), neighbours.columns, settings, outputs)
    write_csv(outputs.funnel, count_fates(sizes, counts))


class _Neighbours:
    """The neighbours of all classes, of which the texts stay in the files of the searches' answers.

    Parameters
    ----------
    min_aesthetic : that the source must know of an image; None where it need not know any
    main : class, id and sha256 of the images that the main ratio used, or None
    licences : of images that may be used, or None
    """

    def __init__(self, min_aesthetic: float | None, main: pd.DataFrame | None, licences: Sequence[str] | None):
        self.min_aesthetic, self.licences = min_aesthetic, licences
        self.owners = dict(zip(main["id"], main["class"], strict=True)) if main is not None else {}
        self.taken = dict(zip(main["sha256"], main["class"], strict=True)) if main is not None else {}
        self.answers: dict[str, Path] = {}
        self.ranked: dict[str, Ranked] = {}
        self.known = Known()

    def add(self, key: str, answer: Path) -> None:
        self.answers[key] = answer
        self.ranked[key] = Ranked.of(self._rows(key))

    def _rows(self, key: str) -> pd.DataFrame:
        return before_download(pd.read_parquet(self.answers[key]), self.min_aesthetic, self.owners, self.licences)

    @property
    def columns(self) -> list[str]:
        """Of the ledger."""
        return [*LEDGER, *[LICENCE] * any(_has_licences(answer) for answer in self.answers.values())]

    def fresh(self, keys: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Neighbours of some classes that nobody looked at yet, each address once, some at a time."""
        addresses = pa.chunked_array([self.ranked[key].addresses for key in keys])
        pending = np.concatenate([self.ranked[key].pending for key in keys])
        pending &= self.known.places(addresses) < 0
        coded = addresses.combine_chunks().dictionary_encode().indices.to_numpy()
        firsts = np.flatnonzero(pending)[np.unique(coded[pending], return_index=True)[1]]
        wanted = np.zeros(len(pending), bool)
        wanted[firsts] = True
        parts, count, begin = [], 0, 0
        for key in keys:
            end = begin + len(self.ranked[key].ids)
            if wanted[begin:end].any():
                parts.append(self._rows(key)[wanted[begin:end]])
                count += len(parts[-1])
            begin = end
            if count >= AT_ONCE:
                yield pd.concat(parts)
                parts, count = [], 0
        if parts:
            yield pd.concat(parts)

    def assign(self, missing: Mapping[str, int]) -> dict[str, Outcome]:
        return assign_images(self.ranked, self.known, missing, self.taken)

    def ledger_rows(self, outcomes: Mapping[str, Outcome]) -> Iterator[pd.DataFrame]:
        """The ledger, class by class."""
        names = class_names(self.ranked, self.taken)
        for key, outcome in outcomes.items():
            yield final_rows(key, self._rows(key), outcome, self.known, names)


def _factors(settings: Retrieval) -> list[float]:
    """Neighbours asked for at each search, as multiples of the images wanted."""
    factors = [settings.overfetch]
    while factors[-1] < settings.overfetch_max:
        factors.append(min(2 * factors[-1], settings.overfetch_max))
    return factors


def _times(factor: float, count: int) -> int:
    return math.ceil(factor * count - 1e-9)  # 1.4 x 5 is 7, whatever the low bits say


def _bytes_of(rows: pd.DataFrame, fetch: Callable[[list[str]], Iterable[pd.DataFrame]]) -> Iterator[pd.DataFrame]:
    """Fate, reason, and place of the bytes of neighbours, by address; downloads those that lie nowhere here."""
    here = rows["path"].notna()
    local = rows[here][["address", "path", "offset", "length"]].assign(fate="fetched", reason="")
    local = local.sort_values(["path", "offset"], kind="stable")  # rows of Parquet are best read as they lie
    local["sha256"] = [hashlib.sha256(images.load_bytes(row)).hexdigest() for row in local.itertuples()]
    yield local
    for table in fetch(sorted(rows.loc[~here, "address"])):
        yield table.rename(columns={"url": "address"})


def _check_scores(answers: Sequence[Path]) -> None:
    """Raise ValueError when not one neighbour has an aesthetic score."""
    scores = (pd.read_parquet(answer, columns=["aesthetic"])["aesthetic"] for answer in answers)
    if all(each.isna().all() for each in scores) and any(map(images.count, answers)):
        raise ValueError(
            "no image of the pool has an aesthetic score, by which retrieval.min_aesthetic could discard it; name a "
            "model that scores pictures, `retrieval: {aesthetic_model: HEAD.pth}`, or write `min_aesthetic: null` to "
            "take images whatever their score"
        )


def _has_licences(answer: Path) -> bool:
    return LICENCE in pq.read_schema(answer).names


def _check_licences(answers: Sequence[Path]) -> None:
    """Raise ValueError when not one neighbour has a licence."""
    stated = (_has_licences(answer) and pd.read_parquet(answer, columns=[LICENCE])[LICENCE].any() for answer in answers)
    if not any(stated) and any(map(images.count, answers)):
        raise ValueError(
            "no image of the pool has a licence by which it could be chosen: leave out `pool: {licences: ...}`, or "
            "give the licences in a column licence or license"
        )


def _write_results(
    ledger: Iterable[pd.DataFrame], columns: list[str], settings: Retrieval, outputs: Outputs
) -> pd.Series:
    """Write ledger (its ``columns``), shard, image table and hosts from the ledger's rows, class by class; returns the
    number of rows by class and fate."""
    sizes, counted = [], hosts.Hosts()
    with contextlib.ExitStack() as stack:
        write = stack.enter_context(_ledger_writer(outputs.ledger, columns))
        writer = stack.enter_context(images.ShardWriter(stack.enter_context(whole(outputs.shard))))

        def used() -> Iterator[list[dict]]:
            number = 0
            for rows in ledger:
                sizes.append(rows.groupby(["class", "fate"]).size())
                write(rows.reindex(columns=columns))
                counted.add(rows)
                mine = rows[rows["fate"] == "used"]
                yield [_write_image(writer, number, row, settings, outputs.shard) for row in mine.to_dict("records")]
                number += len(mine) > 0

        images.write_batches(outputs.images, used())
    write_csv(outputs.hosts, counted.table())
    return pd.concat(sizes)


@contextlib.contextmanager
def _ledger_writer(path: str | Path, columns: list[str]) -> Iterator[Callable[[pd.DataFrame], None]]:
    """A function that takes the ledger's rows, some thousands at a time; the file has groups of many rows, as readers
    like them."""
    writer, waiting = None, []

    def flush() -> None:
        nonlocal writer
        rows = pa.Table.from_pandas(pd.concat(waiting), schema=schema(columns), preserve_index=False)
        writer = writer or stack.enter_context(pq.ParquetWriter(temporary, rows.schema))
        writer.write_table(rows)
        waiting.clear()

    def write(rows: pd.DataFrame) -> None:
        waiting.append(rows)
        if sum(map(len, waiting)) >= AT_ONCE:
            flush()

    with whole(path) as temporary, contextlib.ExitStack() as stack:
        yield write
        if waiting:
            flush()


def _write_image(writer: images.ShardWriter, number: int, row: Mapping, settings: Retrieval, shard: str | Path) -> dict:
    """Write an image of the class of some ``number`` into the shard; returns its row of the image table."""
    bytes_of = images.load_bytes(pd.Series({name: row[name] for name in ("path", "offset", "length")}))
    extension, data = images.portable(bytes_of, settings.max_image_size, settings.max_pixels)
    boxes = row.get("face_bboxes") if settings.blur_faces else None
    if isinstance(boxes, str):
        extension, data = "png", images.encode_png(faces.blurred(images.decode(data), faces.boxes(boxes)))
    facts = {"class": row["class"], "url": row["url"], "sha256": row["sha256"]}
    licence = row.get(LICENCE)
    facts |= {"licence": licence} if isinstance(licence, str) else {}
    members = {extension: data, "txt": row["caption"] or "", "json": facts}
    # By number: neither a class's name nor anything from the web is a part of a file's name.
    offset, length = writer.add(f"{number:04d}-{row['rank']:06d}", members, image=extension)
    return {
        "image_id": f"retrieval/{row['class']}/{row['id']}",
        "class": row["class"],
        "path": str(shard),
        "offset": offset,
        "length": length,
        "url": row["url"],
        "similarity": row["similarity"],
        "sha256": row["sha256"],
        "licence": facts.get("licence"),
    }


# --- the job: a method's retrieval from a study's pool ---------------------------------------------------


class Inputs(NamedTuple):
    """Files that a method's retrieval reads.

    classes, images : class table and all images of the target, before retrieval says which classes stay
    safety : folder of the safety checker, if there is one
    index : of a clip-retrieval folder, unless a service is asked
    captions : full-text index of the pool's captions, for a method that matches them
    head : of aesthetic scores, for pictures; web : image table of the built-in web
    kept, main : of more than the main ratio: class table with what is excluded, and the main ratio's ledger
    """

    classes: str | Path
    images: str | Path
    safety: str | Path | None = None
    index: str | Path | None = None
    captions: str | Path | None = None
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
    fill_to: str | int | None,
    inputs: Inputs,
    outputs: Outputs,
    progress: Callable[[int, int, str], None],
) -> None:
    """Retrieve a method's images at an augmentation ratio, see :func:`retrieve`.

    ``method`` is its row of the method table: of it count conditioning, match, query and diversity. ``fill_to`` is that
    of :func:`augbench.study.classes.wanted`. Searches and downloads are cached beside the folders of the study's
    methods: another method's search finds many of the same images.
    """
    torch.set_num_threads(settings.threads)
    work = Path(outputs.funnel).parents[2 if inputs.main else 1]
    target = images.read(inputs.images, extra=["split"])
    table = pd.read_csv(inputs.classes, dtype=str, keep_default_na=False)
    if inputs.kept:  # what the main ratio could not fill takes no part
        table = table[table["class"].isin([row["class"] for row in classes.kept(inputs.kept)])]
    prompts = search.prompts(table, method["conditioning"])
    row = Method.from_row(method)
    model = clip.Clip(clip_model) if inputs.head or needs_clip(pool, row.query, prompts) else None
    counts = classes.retrieved(target, settings.images_per_class, ratio, fill_to)
    asked = _queries(target, table["class"], prompts, row.query, model, progress)
    source = _open_source(pool, inputs.index, model)
    captions = Captions(inputs.captions) if inputs.captions else None
    score = aesthetics.of_pictures(inputs.head, model) if inputs.head else None
    models = [path for path in (inputs.safety, inputs.head) if path]
    judges = resume.identity(__name__, [settings, clip_model if inputs.head else None], models)
    wanted = pd.DataFrame({"class": table["class"], "query": asked, "count": table["class"].map(counts)})
    if captions:
        wanted = wanted.assign(names=[row.match.names(class_info) for class_info in table.to_dict("records")])
    threshold, diversity = settings.duplicate_threshold, row.diversity
    with _served(inputs.web) as proxy:
        retrieve(
            wanted,
            search.CachedSearch(source, work / "neighbours", threshold, diversity, match=row.match, captions=captions),
            functools.partial(
                download.fetch_in_turn, work=work / "downloads", settings=settings, owner=name, proxy=proxy
            ),
            Inspection(safety_checker(inputs.safety), settings, score, work / "verdicts", judges),
            outputs,
            settings,
            main=_used(inputs.main) if inputs.main else None,
            licences=pool.licences,
            progress=progress,
        )


def _used(ledger: str | Path) -> pd.DataFrame:
    """class, id and sha256 of the images that a ledger says are used."""
    return pd.read_parquet(ledger, columns=["class", "id", "sha256"], filters=[("fate", "==", "used")])


def needs_clip(pool: Pool, query: Query, prompts: Sequence[Sequence[str]]) -> bool:
    """Whether a query is embedded here: a service does so itself with a single text."""
    return not pool.source.is_remote or not query.is_texts_alone or any(len(texts) > 1 for texts in prompts)


def _queries(target: pd.DataFrame, keys: Sequence[str], prompts: Sequence, query: Query, model, progress) -> list:
    """What to search for, for each class; ``target`` is the image table with the column split."""
    asked = []
    for key, texts in zip(keys, prompts, strict=True):
        mine = target[(target["split"] == "train") & (target["class"] == key)]
        vectors = clip.embed(mine, model.pictures, progress) if query.images else None
        asked.append(search.query(texts, vectors, model, query))
    return asked


def _open_source(pool: Pool, folder: str | Path | None, model):
    """What answers queries: a service, or the index or the embeddings in ``folder``."""
    if pool.source.is_remote:
        return service.Service(
            pool.url, pool.index, pause=pool.pause, timeout=pool.timeout, licences=pool.licences is not None
        )
    if pool.source.is_scanned:
        return scan.Scan(folder, pool.array, model)
    return index.LocalIndex(folder, model, places=pool.source.is_local)


@contextlib.contextmanager
def _served(web: str | Path | None) -> Iterator[str | None]:
    """The address of a proxy that serves the pictures of an image table, for as long as the block lasts; or None."""
    if web is None:
        yield None
        return
    with server.serve(images.read(web)) as proxy:
        yield proxy
