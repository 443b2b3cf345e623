"""Nearest neighbours of queries in CLIP space: from an index on this machine, or from a service.

Both give the same: for each query a table, the best first, with the columns id, similarity (cosine), url, caption,
aesthetic (null where unknown), duplicate_of (id of a better image of which clip-retrieval's detector finds this
one a duplicate; null for none) and, where the image lies on this machine, its path, offset and length.

A query is a text, or an embedding of unit length. The best are the most similar, ties by id; with a ``diversity``
above 0 they are ordered by maximal marginal relevance.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from augbench import aesthetics, texts
from augbench.files import whole

CHUNK = 64 << 20  # bytes of vectors that are reconstructed at a time
URL, CAPTION, AESTHETIC = ["url", "URL"], ["caption", "text", "TEXT"], ["aesthetic", "AESTHETIC_SCORE"]
PLACE = ["path", "offset", "length"]
COLUMNS = [*URL, *CAPTION, *AESTHETIC]


def duplicate_of(vectors, threshold: float) -> list[int | None]:
    """For each vector (n, d; unit length) the place of the first of its group, None for the first itself.

    Groups are the connected components of inner products of at least ``threshold``, as in clip-retrieval.
    """
    from clip_retrieval.clip_back import KnnService

    groups = KnnService(clip_resources={})
    found: list[int | None] = [None] * len(vectors)
    if not len(vectors):
        return found
    import faiss
    import numpy as np

    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    limits, _, near = flat.range_search(vectors, threshold)
    mapping = {i: [int(j) for j in near[limits[i] : limits[i + 1]]] for i in range(len(vectors))}
    for group in groups.connected_components(mapping):
        for place in group:
            found[place] = min(group) if place != min(group) else None
    return found


def by_marginal_relevance(similarities, vectors, diversity: float) -> list[int]:
    """The order in which greedy maximal marginal relevance picks all of n images (Carbonell and Goldstein, 1998).

    Each next one has the largest (1 - ``diversity``) * similarity to the query - ``diversity`` * similarity to the
    most similar image before it; ties go to the earlier one.

    Parameters
    ----------
    similarities : (n,) to the query; vectors : (n, width), of unit length
    """
    import numpy as np

    relevance = (1 - diversity) * np.asarray(similarities, dtype=float)
    between, nearest = vectors @ vectors.T, None  # nearest: similarity to the most similar image that is picked
    left, order = np.ones(len(vectors), dtype=bool), []
    for _ in range(len(vectors)):
        gain = relevance if nearest is None else relevance - diversity * nearest
        picked = int(np.argmax(np.where(left, gain, -np.inf)))
        order.append(picked)
        left[picked] = False
        nearest = between[picked] if nearest is None else np.maximum(nearest, between[picked])
    return order


class LocalIndex:
    """A clip-retrieval folder: ``image.index`` (memory-mapped) and metadata as HDF5, Arrow or Parquet."""

    def __init__(
        self, folder: str | Path, clip, work: str | Path, *, head: str | Path | None = None, places: bool = False
    ):
        """
        Parameters
        ----------
        clip : embeds texts, see :class:`augbench.clip.Clip`; of the images' own space
        work : receives a memory-mapped copy of metadata that are Parquet, which cannot be mapped
        head : scores aesthetics instead of the metadata, see :mod:`augbench.aesthetics`
        places : whether to believe the metadata that an image lies on this machine; never those of a stranger
        """
        from clip_retrieval.clip_back import load_index

        folder = Path(folder)
        self.index = load_index(str(folder / "image.index"), True)
        self.metadata = _metadata(folder, Path(work), COLUMNS + PLACE * places)
        self.clip, self.score = clip, aesthetics.scorer(head) if head else None
        about = (folder / "image.index").stat()
        #: What its answers depend on, beside the question.
        self.identity = [str(folder), about.st_size, about.st_mtime_ns, str(head)]

    def neighbours(
        self, queries: Sequence, counts: Sequence[int], threshold: float, *, diversity: float = 0.0, of: Sequence = ()
    ) -> Iterator[pd.DataFrame]:
        """The tables of the queries, in their order, each with (at most) its count of neighbours; with a
        ``diversity`` the best among ``of`` nearest."""
        import numpy as np

        vectors = np.stack([self.clip.texts([q])[0] if isinstance(q, str) else np.float32(q) for q in queries])
        searched = list(of) if diversity else list(counts)
        size = max(1, CHUNK // (4 * self.index.d * max(searched)))
        for start in range(0, len(queries), size):
            most = max(searched[start : start + size])
            similarities, ids, found = self.index.search_and_reconstruct(vectors[start : start + size], most)
            for row, place in enumerate(range(start, min(start + size, len(queries)))):
                table = pd.DataFrame({"id": ids[row], "similarity": similarities[row].astype(float)})
                table["row"] = range(len(table))
                table = table[table["id"] >= 0].sort_values(["similarity", "id"], ascending=[False, True])
                table = table.head(searched[place]).reset_index(drop=True)
                own = found[row][table.pop("row")].astype(np.float32)  # they may be stored in half precision
                own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
                if diversity:
                    order = by_marginal_relevance(table["similarity"], own, diversity)[: counts[place]]
                    table, own = table.iloc[order].reset_index(drop=True), own[order]
                groups = duplicate_of(own, threshold)
                table["duplicate_of"] = [None if i is None else int(table["id"].iloc[i]) for i in groups]
                table = _complete(table, self.metadata(table["id"].tolist()))
                yield table.assign(aesthetic=self.score(own)) if self.score else table


class Service:
    """A running ``clip-retrieval back``, asked through its own client.

    Its duplicate detector has a fixed threshold and does not say of what an image is a duplicate, so each
    prompt is asked twice, with and without it; ``duplicate_of`` is then -1.
    """

    def __init__(self, url: str, index: str, *, attempts: int = 6, pause: float = 0.0, wait: float = 1.0):
        """
        Parameters
        ----------
        attempts : for each question, with a wait between them that doubles from ``wait`` seconds
        pause : seconds between questions, to spare the service
        """
        self.url, self.index, self.attempts, self.pause, self.wait = url, index, attempts, pause, wait
        self.identity = [url, index]

    def neighbours(
        self, queries: Sequence, counts: Sequence[int], threshold: float, *, diversity: float = 0.0, of: Sequence = ()
    ) -> Iterator[pd.DataFrame]:
        """The tables of the queries; ``threshold`` has no effect here, the service has its own. Raises ValueError
        for a ``diversity``: a service does not tell embeddings."""
        if diversity:
            raise ValueError("a service does not tell embeddings, so its images cannot be diversified; use an index")
        for query, count in zip(queries, counts, strict=True):
            everything = pd.DataFrame(self._ask(query, count, deduplicate=False))
            if everything.empty:
                yield _complete(pd.DataFrame({"id": [], "similarity": [], "duplicate_of": []}), everything)
                continue
            distinct = {row["id"] for row in self._ask(query, count, deduplicate=True)}
            everything = everything.sort_values(["similarity", "id"], ascending=[False, True], ignore_index=True)
            table = everything[["id", "similarity"]].copy()
            table["duplicate_of"] = [None if image in distinct else -1 for image in table["id"]]
            yield _complete(table, everything)

    def _ask(self, query, count: int, deduplicate: bool) -> list[dict]:
        from clip_retrieval.clip_client import ClipClient

        client = ClipClient(
            self.url,
            self.index,
            aesthetic_score="",  # nothing may bend the query
            aesthetic_weight=0,
            num_images=count,
            deduplicate=deduplicate,
            use_safety_model=False,
            use_violence_detector=False,
        )
        asked = {"text": query} if isinstance(query, str) else {"embedding_input": [float(x) for x in query]}
        for attempt in range(self.attempts):
            time.sleep(self.pause if attempt == 0 else self.wait * 2 ** (attempt - 1))
            try:
                answer = client.query(**asked)
                if isinstance(answer, list):
                    return answer
                problem = f"it answered {str(answer)[:200]}"
            except (OSError, ValueError) as error:  # no connection, or an answer that is no JSON
                problem = str(error)[:200]
        raise ConnectionError(
            f"the retrieval service at {self.url} failed {self.attempts} times ({problem}); "
            "is `clip-retrieval back` running there? What was retrieved is kept; start again to go on"
        )


def _complete(table: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the metadata ``facts`` of its rows."""
    table["url"] = _first(facts, URL)
    table["caption"] = _first(facts, CAPTION)
    table["aesthetic"] = pd.to_numeric(_first(facts, AESTHETIC), errors="coerce") if len(table) else []
    for name in PLACE:
        table[name] = _first(facts, [name])
    kinds = {"id": "int64", "similarity": float, "aesthetic": float, "duplicate_of": "Int64"}
    return table.astype(kinds | {"path": object, "offset": "Int64", "length": "Int64"})


def _first(facts: pd.DataFrame, names: Sequence[str]):
    return next((facts[name].to_numpy() for name in names if name in facts), None)


# --- metadata -------------------------------------------------------------------------------------------


def _metadata(folder: Path, work: Path, wanted: Sequence[str]) -> Callable[[Sequence[int]], pd.DataFrame]:
    """A function from ids to their metadata, in that order, that keeps nothing in memory."""
    hdf5 = folder / "metadata.hdf5"
    if hdf5.is_file():
        return _from_hdf5(hdf5, wanted)
    files = sorted((folder / "metadata").glob("**/*.arrow"))
    if not files:
        parquet = sorted((folder / "metadata").glob("*.parquet"))
        if not parquet:
            raise FileNotFoundError(f"{folder} has no metadata: metadata.hdf5, metadata/*.arrow or metadata/*.parquet")
        files = [_as_arrow(parquet, work / "metadata.arrow", wanted)]
    import pyarrow as pa

    tables = [pa.ipc.open_file(pa.memory_map(str(file), "r")).read_all() for file in files]
    schema = _joint([table.schema for table in tables], wanted)
    table = pa.concat_tables([_typed(table, schema) for table in tables])
    return lambda ids: table.take(pa.array(ids, pa.int64())).to_pandas()


def _joint(schemas: Sequence, wanted: Sequence[str]):
    """One schema for the parts of an index, with what any of them has of ``wanted``: text in the type that all have,
    so that it stays where it is on the disk, else as plain text, and numbers."""
    import pyarrow as pa

    fields = []
    for name, spellings in _spellings(wanted).items():
        kinds = {schema.field(spelt).type for schema in schemas for spelt in spellings if spelt in schema.names}
        if kinds:
            fields.append((name, kinds.pop() if kinds in ({pa.string()}, {pa.large_string()}) else _kind(name)))
    return pa.schema(fields or [("url", pa.string())])


NUMBERS = {"aesthetic": "float64", "offset": "int64", "length": "int64"}  # columns that hold no text


def _kind(name: str):
    import pyarrow as pa

    return pa.type_for_alias(NUMBERS.get(name, "string"))


def _spellings(wanted: Sequence[str]) -> dict[str, list[str]]:
    groups = {"url": URL, "caption": CAPTION, "aesthetic": AESTHETIC} | {name: [name] for name in PLACE}
    return {name: [spelt for spelt in group if spelt in wanted] for name, group in groups.items()}


def _typed(table, schema):
    """A part's metadata under the names and types of ``schema``; null where it has none."""
    import pyarrow as pa

    columns = []
    for field in schema:
        spelt = next((spelt for spelt in _spellings(COLUMNS + PLACE)[field.name] if spelt in table.column_names), None)
        columns.append(_cast(table[spelt], field.type) if spelt else pa.nulls(table.num_rows, field.type))
    return pa.table(columns, schema=schema)


def _cast(column, kind):
    """A column in another type; values that are none of it are null, or JSON where it is text."""
    import pyarrow as pa

    try:
        return column.cast(kind)
    except pa.ArrowException:
        read = _as_text if pa.types.is_string(kind) or pa.types.is_large_string(kind) else _as_number
        return pa.array([None if value is None else read(value) for value in column.to_pylist()], kind)


def _as_text(value) -> str:
    if isinstance(value, bytes):
        return texts.decode(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _as_number(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _as_arrow(parquet: Sequence[Path], path: Path, wanted: Sequence[str]) -> Path:
    """The Parquet files as one Arrow file, which can be memory-mapped; a batch at a time, once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.exists() and path.stat().st_mtime >= max(file.stat().st_mtime for file in parquet):
        return path
    schemas = [pq.read_schema(file) for file in parquet]
    schema = _joint(schemas, wanted)
    with whole(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        for file, own in zip(parquet, schemas, strict=True):
            names = [name for name in wanted if name in own.names] or own.names[:1]
            for batch in pq.ParquetFile(file).iter_batches(columns=names, batch_size=100_000):
                writer.write_table(_typed(pa.Table.from_batches([batch]), schema))
    return path


def _from_hdf5(path: Path, wanted: Sequence[str]) -> Callable[[Sequence[int]], pd.DataFrame]:
    import h5py
    import numpy as np

    data = h5py.File(path, "r")["dataset"]
    names = [name for name in wanted if name in data]

    def get(ids):
        order = np.argsort(ids, kind="stable")  # HDF5 reads increasing places only
        unique, back = np.unique(np.asarray(ids)[order], return_inverse=True)
        found = {}
        for name in names:
            values = data[name][unique] if len(unique) else np.array([])
            values = np.array([texts.decode(v) if isinstance(v, bytes) else v for v in values], dtype=object)
            column = np.empty(len(ids), dtype=object)
            column[order] = values[back]
            found[name] = column
        return pd.DataFrame(found)

    return get
