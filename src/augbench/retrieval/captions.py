"""Which rows of a pool have captions that name a class: a full-text index (SQLite's FTS5) of its metadata.

Matching captions finds what CLIP does not know by name, fine-grained classes above all (Neural Priming, Wallingford et
al. 2023; SWAT, Liu et al. 2025; Geng et al. 2024).
"""

import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from augbench.core.files import BadInput, whole
from augbench.retrieval import metadata
from augbench.study import embedding_pairs
from augbench.study.sections.retrieval import Pool

# Words are runs of letters and digits of any script, whatever their case and accents. The captions themselves stay in
# the metadata: the index holds nothing but the rows and places of each word, without which no phrase could be found.
SCHEMA = """CREATE VIRTUAL TABLE captions USING fts5(
    caption, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2')"""
CACHE = 64 << 10  # KiB of the file that SQLite keeps in memory


def build(
    pool: Pool,
    folder: str | Path,
    file: str | Path,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Write the full-text index of the captions of a pool that is searched in ``folder``; rows are numbered as its
    vectors are. Captions are read as they stream by.

    Raises BadInput when there is not one caption.
    """
    parts = _metadata(pool, Path(folder))
    total, captioned = sum(metadata.rows_of(part) for part in parts), 0
    with whole(file) as temporary, contextlib.closing(sqlite3.connect(temporary)) as connection:
        # The file is of no use before it is complete, so nothing need be undone.
        connection.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{CACHE};")
        connection.execute(SCHEMA)
        begin = 0
        for texts in itertools.chain.from_iterable(metadata.captions(part) for part in parts):
            rows = [(begin + place, text) for place, text in enumerate(texts) if text]
            connection.executemany("INSERT INTO captions(rowid, caption) VALUES (?, ?)", rows)
            begin, captioned = begin + len(texts), captioned + len(rows)
            progress(begin, total, "captions indexed")
        if not captioned:
            raise BadInput(
                f"no image of {folder} has a caption by which it could be matched: write `match: clip`, or give the "
                "captions in a column caption or text"
            )
        connection.execute("INSERT INTO captions(captions) VALUES ('optimize')")
        connection.commit()
    print(f"{captioned:,} of {begin:,} images have a caption", flush=True)


def _metadata(pool: Pool, folder: Path) -> list[Path]:
    """The files of metadata of the pool's vectors, in their order."""
    if pool.source.is_scanned:
        return [pair.metadata for pair in embedding_pairs.pairs(folder, pool.array)]
    return metadata.files(folder)


class Captions:
    """The full-text index in a file; ``identity`` is what its answers depend on, beside the question."""

    def __init__(self, file: str | Path):
        status = Path(file).stat()
        self.connection = sqlite3.connect(f"{Path(file).resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        self.identity = [status.st_size, status.st_mtime_ns]

    def rows(self, names: Sequence[str], most: int | None = None) -> np.ndarray:
        """Rows, increasing, whose captions have one of the ``names``, each as whole words in their order, int64 (n,);
        the first ``most`` of them."""
        phrases = " OR ".join('"{}"'.format(name.replace('"', " ")) for name in names)
        asked = "SELECT rowid FROM captions WHERE captions MATCH ? ORDER BY rowid LIMIT ?"
        return np.fromiter(self._numbers(asked, (phrases, -1 if most is None else most)), np.int64)

    def _numbers(self, *asked) -> Iterator[int]:
        return (number for (number,) in self.connection.execute(*asked))
