"""Makes WebDataset shards of a pool: of image files, or of what lists of URLs name."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from augbench import images
from augbench.core import files, list_files, texts
from augbench.core.files import BadInput, whole
from augbench.retrieval import download
from augbench.study.sections.retrieval import Retrieval
from augbench.study.sources import PROVENANCE, checked_rows, spellings


def states(names: Iterable[str]) -> list[list]:
    """Path, size in bytes and time of change of files; None twice for a link that leads nowhere."""
    rows = []
    for name in names:
        try:
            status = Path(name).stat()
            rows.append([name, status.st_size, status.st_mtime_ns])
        except OSError:  # left out when the shard is packed
            rows.append([name, None, None])
    return rows


def pack(
    names: Sequence[str | Path],
    shard: str | Path,
    *,
    max_image_size: int,
    max_pixels: int,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """A shard of image files; the caption of ``NAME.jpg`` stands in ``NAME.txt`` beside it, where there is one. What
    cannot be read is left out."""

    def samples():
        for number, file in enumerate(map(Path, names)):
            yield str(file), functools.partial(files.read_bytes, file), {"caption": _beside(file), "file": str(file)}
            progress(number + 1, len(names), "images packed")

    _write_shard(samples(), shard, max_image_size, max_pixels)


def _beside(file: Path) -> str | None:
    """The caption in the text file beside an image."""
    try:
        return texts.decode(files.read_bytes(file.with_suffix(".txt"))).strip()
    except BadInput:
        return None


def url_list(
    names: Sequence[str | Path], start: int, stop: int, columns: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Rows ``start`` to ``stop``, as far as there are so many, of lists of URLs: columns url, caption (text), aesthetic
    (number), licence; None where they say nothing. ``columns`` as in the section ``pool``.

    Raises BadInput when a file has no column called like a URL, or one that holds no text.
    """
    known = spellings(columns or {})
    for name in names:
        checked_rows(name, known)
    read = known | {"licence": PROVENANCE["licence"]}
    table = pd.DataFrame(list_files.rows(names, start, stop, read), columns=list(read), dtype=object)
    return table.assign(aesthetic=pd.to_numeric(table["aesthetic"], errors="coerce").astype(float))


def download_shard(
    rows: pd.DataFrame,
    shard: str | Path,
    ledger: str | Path,
    work: str | Path,
    settings: Retrieval,
) -> None:
    """A shard of the images at ``rows`` (columns of :func:`url_list`), and a Parquet ledger of all: url, fate, reason,
    and the bytes that came.

    Downloads are cached in ``work``.
    """
    rows = rows[rows["url"].notna() & (rows["url"] != "")].drop_duplicates("url")
    outcome = download.fetch(list(rows["url"]), work, settings)
    listed = rows.set_index("url")

    def samples():
        for row in outcome[outcome["fate"] == "fetched"].itertuples():
            facts: Any = listed.loc[row.url]
            known = {name: None if pd.isna(value) else value for name, value in facts.items()}
            known |= {"url": row.url, "sha256": row.sha256}
            if known["licence"] is None:
                del known["licence"]
            yield row.url, functools.partial(images.load_bytes, row), known

    unreadable = _write_shard(samples(), shard, settings.max_image_size, settings.max_pixels)
    bad = outcome["url"].isin(unreadable.keys())
    outcome.loc[bad, "fate"], outcome.loc[bad, "reason"] = "unreadable", outcome.loc[bad, "url"].map(unreadable)
    print(outcome["fate"].value_counts().to_string(), flush=True)
    with whole(ledger) as temporary:
        table = outcome.assign(bytes=outcome["length"].fillna(0).astype("int64"))
        table[["url", "fate", "reason", "bytes"]].to_parquet(temporary, index=False)


def _write_shard(samples: Iterable, shard: str | Path, max_image_size: int, max_pixels: int) -> dict[str, str]:
    """Write (name, function that reads the bytes, facts) as a WebDataset shard; returns names of images that cannot be
    read, with reasons."""
    unreadable = {}
    with whole(shard) as temporary, images.ShardWriter(temporary) as writer:
        for number, (name, read, facts) in enumerate(samples):
            try:
                _, data = images.portable(read(), max_image_size, max_pixels)
            except ValueError as error:
                unreadable[name] = str(error)[:200]
                print(f"left out: {name}: {error}", flush=True)
                continue
            # All under one extension, as img2dataset has it: clip-retrieval reads one from a shard.
            text = {"txt": facts["caption"]} if facts["caption"] else {}
            writer.add(f"{number:09d}", {"jpg": data, **text, "json": facts}, image="jpg")
    return unreadable
