"""Scores every image that a method may add, once, before sets are drawn: see :mod:`augbench.study.scores`.

Images are read some at a time, and so is their table; in memory are hashes and embeddings of the training and held-out
images, and the hashes of the images scored so far.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from augbench import images
from augbench.audit import hashes as image_hashes
from augbench.audit.duplicates import BITS, SIMILARITIES
from augbench.core import files, resume
from augbench.core.files import whole
from augbench.images import embeddings
from augbench.study import classes
from augbench.study.scores import COLUMNS, SCORES
from augbench.study.sections import base
from augbench.study.sections.classifier import Classifier

AT_A_TIME = 10_000  # images, of whose embeddings so many are in memory
KINDS = {"hash": pa.uint64(), **dict.fromkeys(SCORES, pa.float64())}
SCHEMA = pa.schema([(name, KINDS.get(name, pa.string())) for name in COLUMNS])


class References(NamedTuple):
    """Images that others are compared with: their ids, uint64 hashes (n,), and embeddings (n, width) or None."""

    ids: np.ndarray
    hashes: np.ndarray
    vectors: np.ndarray | None

    @classmethod
    def read(cls, tables: Sequence[str], hashes: Sequence[str], vectors: Sequence[str]) -> "References":
        parts = [images.read_columns(path, columns=("image_id",)) for path in tables]
        known = [image_hashes.read(path, part) for path, part in zip(hashes, parts, strict=True)]
        seen = [embeddings.read(path, part) for path, part in zip(vectors, parts, strict=False) if len(part)]
        ids = [part["image_id"].to_numpy(object) for part in parts]
        return cls(np.concatenate(ids), np.concatenate(known), np.concatenate(seen) if seen else None)


class Seers(NamedTuple):
    """What sees images: each a function of an image table; None where the study has no such model.

    ``hash``: perceptual hashes, uint64 (n,); ``embed``: embeddings of length 1 (n, width), for the nearest image;
    ``clip``: the same of CLIP; ``confidence``: probability of each image's own class (n,).
    """

    hash: Callable
    confidence: Callable
    embed: Callable | None = None
    clip: Callable | None = None


class ClassVectors(NamedTuple):
    """CLIP embeddings of each class, by its key: of its prompt, and the mean of its training images; of length 1."""

    prompts: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray]


def nearest_hash(mine: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each hash the place of the nearest of ``others``, and in how many bits they differ: int64 (n,) each."""
    import faiss

    index = faiss.IndexBinaryFlat(BITS)
    index.add(_bytes(others))
    bits, places = index.search(_bytes(mine), 1)
    return places[:, 0].astype(np.int64), bits[:, 0].astype(np.int64)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.uint64).view(np.uint8).reshape(-1, BITS // 8)


def nearest_vector(mine: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each vector (rows, of length 1) the place of the nearest of ``others``, int64 (n,), and their cosine
    distance, float64 (n,)."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    known, step = torch.from_numpy(others).to(device), max(1, SIMILARITIES // len(others))
    blocks = (torch.from_numpy(mine[start : start + step]).to(device) for start in range(0, len(mine), step))
    place = np.concatenate([(block @ known.T).argmax(1).cpu().numpy() for block in blocks])
    return place, 1 - np.einsum("ij,ij->i", mine, others[place]).astype(float)


def novelty(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Bits in which each hash differs from the nearest of those before it, and of the ``known`` ones; BITS for the
    first of all. int64 (n,)"""
    apart = np.full(len(values), BITS, np.int64)
    if len(known) and len(values):
        apart = nearest_hash(values, known)[1]
    for place in range(1, len(values)):
        apart[place] = min(apart[place], np.bitwise_count(values[:place] ^ values[place]).min())
    return apart


def batches(tables: Sequence[str | Path], candidate: str | None, keys: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The images of some tables, AT_A_TIME at most: of the classes that take part, and of one ``candidate`` where
    several were compared."""
    columns = [*images.REFERENCE, *(["candidate"] if candidate else [])]
    for path in tables:
        for batch in pq.ParquetFile(path).iter_batches(AT_A_TIME, columns=columns):
            table = batch.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
            if candidate:
                table = table[table.pop("candidate") == candidate]
            table = table[table["class"].isin(keys)].reset_index(drop=True)
            if len(table):
                yield table


class Scorer:
    """Scores batch after batch of one method's images."""

    def __init__(self, seers: Seers, references: Mapping[str, References], vectors: ClassVectors | None):
        self.seers, self.references, self.vectors = seers, references, vectors
        self.known: dict[str, np.ndarray] = {}  # class -> hashes of its images so far

    def score(self, table: pd.DataFrame) -> pd.DataFrame:
        """Columns ``COLUMNS`` of the images of a table, in its order."""
        scores = table[["image_id", "class"]].astype(object)
        scores["hash"] = hashes = self.seers.hash(table)
        embedded = self.seers.embed(table) if self.seers.embed else None
        for name, others in self.references.items():  # train, held_out
            self._add(scores, f"{name}_bits", others, nearest_hash(hashes, others.hashes))
            if embedded is not None and others.vectors is not None:
                self._add(scores, f"{name}_distance", others, nearest_vector(embedded, others.vectors))
        if self.seers.clip and self.vectors:
            shared = self.seers.clip is self.seers.embed and embedded is not None
            pictures = np.asarray(embedded if shared else self.seers.clip(table))
            for name, of_classes in (("clip", self.vectors.prompts), ("clip_images", self.vectors.means)):
                theirs = np.stack([of_classes[key] for key in scores["class"]])
                scores[name] = np.einsum("ij,ij->i", pictures, theirs).astype(float)
        scores["confidence"] = self.seers.confidence(table).astype(float)
        scores["novelty"] = self._novelty(scores["class"], hashes)
        return scores.reindex(columns=COLUMNS)

    def _add(self, scores: pd.DataFrame, name: str, others: References, nearest: tuple) -> None:
        places, apart = nearest
        scores[name] = apart.astype(float)
        scores[SCORES[name].id_column] = others.ids[places]

    def remember(self, scored: pd.DataFrame) -> None:
        """Take images for scored before: columns class and hash."""
        hashes = np.asarray(scored["hash"], np.uint64)
        for key, places in scored.groupby("class", sort=False).indices.items():
            self.known[str(key)] = np.concatenate([self.known.get(str(key), hashes[:0]), hashes[places]])

    def _novelty(self, keys: pd.Series, hashes: np.ndarray) -> np.ndarray:
        apart = np.zeros(len(keys))
        for key, places in keys.groupby(keys, sort=False).indices.items():
            apart[places] = novelty(hashes[places], self.known.get(str(key), hashes[:0]))
        self.remember(pd.DataFrame({"class": keys, "hash": hashes}))
        return apart


def write(
    path: str | Path,
    tables: Iterator[pd.DataFrame],
    scorer: Scorer,
    total: int,
    fingerprint: str,
    progress: Callable[[int, int, str], object] = lambda *_: None,
) -> None:
    """Write the scores of batches of images, ``total`` of them at most, as Parquet; in memory is one batch.

    What was scored stays beside the table until that is written, so that a job that is killed goes on with the next
    batch, unless its ``fingerprint`` is another one.
    """
    folder = Path(path).parent / "parts"
    if not (folder / fingerprint).is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    parts, done = [], 0
    for number, table in enumerate(tables):
        parts.append(folder / fingerprint / f"{number}.parquet")
        if parts[-1].exists():
            scorer.remember(pd.read_parquet(parts[-1], columns=["class", "hash"]))
        else:
            with whole(parts[-1]) as temporary:
                pq.write_table(pa.Table.from_pandas(scorer.score(table), SCHEMA, preserve_index=False), temporary)
        done += len(table)
        progress(done, total, "images scored")
    with whole(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part, schema=SCHEMA))
    shutil.rmtree(folder, ignore_errors=True)


class Inputs(base.Inputs):
    """Files of a job that scores a method's images; see the rule ``score``."""

    tables: list[str]
    classes: str
    train: str
    held_out: list[str]
    train_hashes: str
    held_out_hashes: list[str]
    judge: str
    selection: str | None = None
    train_vectors: list[str] = []
    held_out_vectors: list[str] = []
    clip: list[str] = []


def write_method(
    path: str | Path,
    inputs: Inputs,
    settings: Classifier,
    *,
    clip_name: str | None,
    embedder: str | None,
    image_size: int,
    threads: int,
    progress: Callable,
) -> None:
    """:func:`write` of a method: with the judge in ``inputs``, trained with ``settings``, the CLIP ``clip_name`` if the
    study has one, and ``embedder``, which is ``clip``, the file of a copy detector that takes ``image_size`` pixels, or
    None."""
    from augbench.classifier import scoring
    from augbench.models import clip, copy_detectors

    rows = classes.kept(inputs.classes)
    keys = [row["class"] for row in rows]
    model = clip.Clip(clip_name) if clip_name else None

    def embedding(see: Callable) -> Callable:
        return lambda table: clip.embed(table, see, lambda *_: None)

    by_clip = embedding(model.pictures) if model else None
    detector = embedder if embedder != "clip" else None
    seers = Seers(
        hash=lambda table: image_hashes.hashes(table, threads),
        confidence=scoring.confidences(Path(inputs.judge).parent, keys, settings),
        embed=embedding(copy_detectors.scripted(detector, image_size)) if detector else by_clip,
        clip=by_clip,
    )
    references = {
        "train": References.read([inputs.train], [inputs.train_hashes], inputs.train_vectors),
        "held_out": References.read(inputs.held_out, inputs.held_out_hashes, inputs.held_out_vectors),
    }
    vectors = None
    if model and by_clip:
        train = images.read_columns(inputs.train)
        known = by_clip(train) if detector else references["train"].vectors
        vectors = class_vectors(rows, train, known, model)
    candidate = files.read_json(inputs.selection)["candidate"] if inputs.selection else None
    read = [inputs.train, *inputs.held_out, *inputs.tables, inputs.judge, *inputs.clip]
    fingerprint = resume.identity(__name__, [settings, clip_name, embedder, image_size, keys, candidate], read)
    scorer, total = Scorer(seers, references, vectors), images.count(*inputs.tables)
    write(path, batches(inputs.tables, candidate, keys), scorer, total, fingerprint, progress)


def class_vectors(rows: Sequence[Mapping], train: pd.DataFrame, vectors: np.ndarray, clip) -> ClassVectors:
    """CLIP's view of classes, which are ``rows`` of the class table: ``train`` are their training images, of which
    ``vectors`` (n, width) are the embeddings; ``clip`` embeds their prompts."""
    from augbench.models import class_prompts

    of_prompts = {row["class"]: mine for row, mine in zip(rows, class_prompts.embed(rows, clip), strict=True)}
    places = train["class"].groupby(train["class"]).indices
    means = {row["class"]: vectors[places[row["class"]]].mean(0) for row in rows}
    return ClassVectors(of_prompts, {key: mean / np.linalg.norm(mean) for key, mean in means.items()})
