"""Nearest neighbours of queries in CLIP space: from an index on this machine, or from a service.

Both give the same: for each query a table, the best first, with the columns id, similarity (cosine), url, caption,
aesthetic (null where unknown), duplicate_of (id of a better image of which clip-retrieval's detector finds this
one a duplicate; null for none) and, where the image lies on this machine, its path, offset and length.

A query is a text, or an embedding of unit length. The best are the most similar, ties by id; with a ``diversity``
above 0 they are ordered by maximal marginal relevance.
"""

import hashlib
import json
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from augbench.core import finite, processes, texts
from augbench.core.files import whole
from augbench.images.folders import is_system

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


def index_shape(folder: str | Path) -> tuple[int, int]:
    """Vectors and their width in a clip-retrieval folder's ``image.index``, from its head: nothing is loaded.

    Raises ValueError for a file that is not there, or no faiss index. Source: faiss, ``write_index_header``.
    """
    file = Path(folder) / "image.index"
    file = file / "populated.index" if file.is_dir() else file  # one in several files
    try:
        with open(file, "rb") as opened:
            head = opened.read(16)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if len(head) < 16 or not re.fullmatch(rb"I[A-Za-z0-9]{3}", head[:4]):
        raise ValueError(f"{file} is no faiss index")
    width, count = struct.unpack("<iq", head[4:])
    return count, width


def metadata_shape(folder: str | Path) -> tuple[int, list[str]]:
    """Rows and columns of a clip-retrieval folder's metadata; columns are those that any of its files has.

    Raises ValueError when there are none, or a file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, parts = Path(folder), []
    try:
        for file in metadata_files(folder):
            if file.suffix == ".hdf5":
                import h5py

                with h5py.File(file, "r") as opened:
                    data = opened["dataset"]
                    parts.append((max((len(data[name]) for name in data), default=0), set(data)))
            elif file.suffix == ".arrow":
                table = pa.ipc.open_file(pa.memory_map(str(file), "r")).read_all()
                parts.append((table.num_rows, _once(file, table.column_names)))
            else:
                about = pq.read_metadata(file)
                parts.append((about.num_rows, _once(file, about.schema.to_arrow_schema().names)))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ValueError(f"the metadata {file} cannot be read: {str(error)[:200]}") from None
    return sum(rows for rows, _ in parts), sorted(set.union(*(names for _, names in parts)))


def _once(file: Path, names: Sequence[str]) -> set[str]:
    """A file's columns. Raises ValueError when there are two of a name that is read."""
    if twice := next((name for name in COLUMNS + PLACE if names.count(name) > 1), None):
        raise ValueError(f"the metadata {file} have several columns {twice!r}; keep one of them, or rename the others")
    return set(names)


def metadata_files(folder: Path) -> list[Path]:
    """The files of a clip-retrieval folder's metadata, of one kind, in their order. Raises ValueError without any."""
    if (folder / "metadata.hdf5").is_file():
        return [folder / "metadata.hdf5"]
    for pattern in ("**/*.arrow", "*.parquet"):
        if files := sorted(file for file in (folder / "metadata").glob(pattern) if not is_system(file.name)):
            return files
    raise ValueError(f"{folder} has no metadata: metadata.hdf5, metadata/*.arrow or metadata/*.parquet")


def check_index(folder: str | Path, *, clip: str = "", width: int | None = None, places: bool = False) -> None:
    """Raise ValueError unless a clip-retrieval folder fits together: its vectors have the ``width`` of the CLIP, where
    that is known, there is a row of metadata for each, and these say where the images are."""
    count, wide = index_shape(folder)
    if width and wide != width:
        raise ValueError(
            f"{folder} has vectors of {wide} numbers, but the CLIP {clip} makes {width}: name its own CLIP"
        )
    rows, names = metadata_shape(folder)
    if rows != count:
        raise ValueError(f"{folder} has {count} vectors and {rows} rows of metadata; they belong to different images")
    if not (set(URL) & set(names) or (places and set(PLACE) <= set(names))):
        raise ValueError(
            f"{folder} has no addresses of its images: its metadata need the column {URL[0]} (they have "
            f"{', '.join(names) or 'none'}); give the images themselves as `pool: {{source: folder}}`"
        )


class LocalIndex:
    """A clip-retrieval folder: ``image.index`` (memory-mapped) and metadata as HDF5, Arrow or Parquet."""

    def __init__(self, folder: str | Path, clip, work: str | Path, *, places: bool = False):
        """
        Parameters
        ----------
        clip : embeds texts, see :class:`augbench.models.clip.Clip`; of the images' own space
        work : receives a memory-mapped copy of metadata that are Parquet, which cannot be mapped
        places : whether to believe the metadata that an image lies on this machine; never those of a stranger
        """
        from clip_retrieval.clip_back import load_index

        folder = Path(folder)
        check_index(folder, places=places)
        self.index = load_index(str(folder / "image.index"), True)
        self.metadata = _metadata(folder, Path(work), COLUMNS + PLACE * places)
        self.clip = clip
        about = (folder / "image.index").stat()
        #: What its answers depend on, beside the question.
        self.identity = [str(folder), about.st_size, about.st_mtime_ns, getattr(clip, "identity", None)]

    def neighbours(
        self, queries: Sequence, counts: Sequence[int], threshold: float, *, diversity: float = 0.0, of: Sequence = ()
    ) -> Iterator[pd.DataFrame]:
        """The tables of the queries, in their order, each with (at most) its count of neighbours; with a
        ``diversity`` the best among ``of`` nearest."""
        import numpy as np

        vectors = np.stack([self.clip.texts([q])[0] if isinstance(q, str) else np.float32(q) for q in queries])
        if vectors.shape[1] != self.index.d:
            raise ValueError(
                f"{self.identity[0]} has vectors of {self.index.d} numbers, but the CLIP makes {vectors.shape[1]}: "
                "name the index's own CLIP"
            )
        finite.check(
            vectors, "the query", [f"the text {q!r}" if isinstance(q, str) else "an embedding" for q in queries]
        )
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
                yield _complete(table, self.metadata(table["id"].tolist()))


class Service:
    """A running ``clip-retrieval back``, asked through its own client.

    Its duplicate detector has a fixed threshold and does not say of what an image is a duplicate, so each
    prompt is asked twice, with and without it; ``duplicate_of`` is then -1.
    """

    def __init__(
        self, url: str, index: str, *, attempts: int = 6, pause: float = 0.0, wait: float = 1.0, timeout=120.0
    ):
        """
        Parameters
        ----------
        attempts : for each question, with a wait between them that doubles from ``wait`` seconds
        pause : seconds between questions, to spare the service
        timeout : seconds for a whole answer
        """
        self.url, self.index, self.attempts, self.pause, self.wait = url, index, attempts, pause, wait
        self.timeout = timeout
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
                answer = processes.answer(lambda: client.query(**asked), self.timeout)
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


def columns_of(path: str | Path) -> list[str]:
    """The columns of an index's metadata, or of Parquet files, without reading them; empty where there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    hdf5 = path / "metadata.hdf5"
    if hdf5.is_file():
        import h5py

        with h5py.File(hdf5, "r") as file:
            return list(file["dataset"])
    for file in sorted((path / "metadata").glob("**/*.arrow")):
        with pa.memory_map(str(file), "r") as mapped:
            return pa.ipc.open_file(mapped).schema.names
    parquet = [path] if path.is_file() else [*path.glob("metadata/*.parquet"), *path.glob("*.parquet")]
    return pq.read_schema(min(parquet)).names if parquet else []


def _metadata(folder: Path, work: Path, wanted: Sequence[str]) -> Callable[[Sequence[int]], pd.DataFrame]:
    """A function from ids to their metadata, in that order, that keeps nothing in memory."""
    files = metadata_files(folder)
    if files[0].suffix == ".hdf5":
        return _from_hdf5(files[0], wanted)
    if files[0].suffix == ".parquet":
        # Of another folder, or for other columns, it is another copy.
        facts = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        name = hashlib.sha256(json.dumps([facts, list(wanted)]).encode()).hexdigest()[:16]
        files = [_as_arrow(files, work / f"metadata-{name}.arrow", wanted)]
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

    if path.exists():
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
