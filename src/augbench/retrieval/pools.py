"""The pool in CLIP space: makes shards of captioned images, embeds them with clip-retrieval, builds the index."""

import functools
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.core import files, finite, list_files, processes, resume, texts
from augbench.core.files import BadInput, whole
from augbench.images import folders
from augbench.models import captioned_pool, clip
from augbench.retrieval import download
from augbench.retrieval.index import AESTHETIC, CAPTION, PLACE, URL

# --- what a pool consists of ----------------------------------------------------------------------------

PATTERNS = {"shards": ".tar", "urls": ".parquet"}  # source -> how its files' names end
COLUMNS = {"url": URL, "caption": CAPTION, "aesthetic": AESTHETIC}  # of a list of URLs, and how they may be spelt


def files_of(source: str, path: str | Path) -> list[str]:
    """The files of a pool, sorted: images at any depth, shards, or lists of URLs; ``path`` may be one list."""
    path = Path(path)
    if source == "folder":
        return listing(path)
    if path.is_file():
        return [str(path)]
    entries = sorted(entry.path for entry in folders.entries(path) if not folders.is_system(entry.name))
    return [name for name in entries if name.lower().endswith(PATTERNS[source])]


def listing(folder: str | Path, left_out: Counter | None = None) -> list[str]:
    """The image files below a folder, sorted, see :func:`augbench.images.folders.images`; no table could hold a name
    that is not UTF-8: these are counted in ``left_out``."""
    left_out = Counter() if left_out is None else left_out
    names = []
    for file in folders.images(folder, left_out):
        if folders.is_text(file):
            names.append(str(file))
        else:
            left_out["names that are not UTF-8"] += 1
    return sorted(names)


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


def check(source: str, path: str | Path) -> None:
    """Raise BadInput when a pool's files cannot be used, as far as that is seen without reading them."""
    if source == "folder":  # not listed here: it may be large, and the plan lists it once for all
        left_out: Counter = Counter()
        if next(folders.images(path, left_out), None) is None:
            instead = f" but {told}" if (told := folders.told(left_out)) else ""
            raise BadInput(f"there is no image in {path}{instead}")
        return
    names = files_of(source, path)
    if not names:
        raise BadInput(f"there is no *{PATTERNS[source]} in {path}")
    if source == "shards":
        for name in names:
            images.check_shard(name)
    if source == "urls" and not sum(_checked_rows(name) for name in names):
        raise BadInput(f"{path} has no rows; a list has the columns url and caption")


def _checked_rows(name: str) -> int:
    """The rows of a list of URLs, whose columns are those that are needed."""
    file = list_files.open_parquet(name)
    spelt = list_files.first_match(file.schema_arrow.names, COLUMNS)
    if "url" not in spelt:
        raise BadInput(
            f"{files.printable(name)} has no column {' or '.join(URL)} (it has {', '.join(file.schema_arrow.names)})"
        )
    list_files.check_types(file, list(spelt.values()), name)
    return file.metadata.num_rows


# --- shards ---------------------------------------------------------------------------------------------


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


def url_list(names: Sequence[str | Path], start: int, stop: int) -> pd.DataFrame:
    """Rows ``start`` to ``stop``, as far as there are so many, of Parquet files: columns url, caption (text), aesthetic
    (number); None where they say nothing.

    Raises BadInput when a file has no column called like a URL, or one that holds no text.
    """
    for name in names:
        _checked_rows(name)
    table = pd.DataFrame(list_files.rows(names, start, stop, COLUMNS), columns=list(COLUMNS), dtype=object)
    return table.assign(aesthetic=pd.to_numeric(table["aesthetic"], errors="coerce").astype(float))


def download_shard(
    rows: pd.DataFrame,
    shard: str | Path,
    ledger: str | Path,
    work: str | Path,
    *,
    fetch: Mapping,
    max_image_size: int,
    max_pixels: int,
) -> None:
    """A shard of the images at ``rows`` (columns of :func:`url_list`), and a Parquet ledger of all: url, fate, reason.

    ``fetch`` holds settings of :func:`augbench.retrieval.download.fetch`, which keeps what it downloads in ``work``.
    """
    rows = rows[rows["url"].notna() & (rows["url"] != "")].drop_duplicates("url")
    found = download.fetch(list(rows["url"]), work, **fetch)
    listed = rows.set_index("url")

    def samples():
        for row in found[found["fate"] == "fetched"].itertuples():
            about = {name: None if pd.isna(value) else value for name, value in listed.loc[row.url].items()}
            facts = about | {"url": row.url, "sha256": row.sha256}
            yield row.url, functools.partial(images.load_bytes, row), facts

    unreadable = _write_shard(samples(), shard, max_image_size, max_pixels)
    bad = found["url"].isin(unreadable.keys())
    found.loc[bad, "fate"], found.loc[bad, "reason"] = "unreadable", found.loc[bad, "url"].map(unreadable)
    print(found["fate"].value_counts().to_string(), flush=True)
    with whole(ledger) as temporary:
        found[["url", "fate", "reason"]].to_parquet(temporary, index=False)


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
            writer.add(f"{number:09d}", {"jpg": data, **text, "json": facts}, of="jpg")
    return unreadable


# --- embeddings and index -------------------------------------------------------------------------------


def embed(
    shards: Sequence[str | Path],
    clip_model: str,
    folder: str | Path,
    *,
    batch_size: int,
    threads: int,
    places: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Embed WebDataset shards with ``clip-retrieval inference``, one after the other.

    Writes ``img_emb/NNNNNN.npy`` (float, n x dimension, unit length) and ``metadata/NNNNNN.parquet`` (one row per
    image, in the order of the embeddings) for each shard that holds an image that can be read. Shards that are done are
    kept beside the folder until all are, so a killed job goes on. ``clip_model`` is a name that clip-retrieval takes.
    With ``places`` the metadata say where each image lies (path, offset, length), so that it need not be downloaded.
    Raises BadInput naming a shard that is damaged.
    """
    import torch

    torch.set_num_threads(threads)
    folder = Path(folder)
    partial = folder.parent / f".{folder.name}.shards"
    done = []
    for number, shard in enumerate(shards):
        done.append(partial / resume.identity(__name__, [clip_model, batch_size, places], [shard])[:32])
        if not done[-1].exists():
            with whole(done[-1]) as temporary:
                _embed_shard(shard, clip_model, temporary, batch_size, places)
        progress(number + 1, len(shards), "shards")
    with whole(folder) as temporary:
        for part in ("img_emb", "metadata"):
            (temporary / part).mkdir(parents=True)
            for number, embedded in enumerate(done):
                for file in (embedded / part).iterdir():  # one, or none of a shard without images
                    shutil.copyfile(file, temporary / part / f"{number:06d}{file.suffix}")
    shutil.rmtree(partial, ignore_errors=True)


def _embed_shard(shard: str | Path, clip_model: str, folder: Path, batch_size: int, places: bool) -> None:
    import numpy as np

    for part in ("img_emb", "metadata"):
        (folder / part).mkdir(parents=True)
    copy = folder.parent / "copy.tar"
    table = _copy_for_clip(shard, copy)
    if table.empty:  # no CLIP need be loaded
        return
    _infer(copy, clip_model, folder, batch_size)
    copy.unlink()
    if not (written := list((folder / "metadata").iterdir())):  # of no image does clip-retrieval write a file
        print(f"{shard}: all of {len(table)} images are damaged and left out", flush=True)
        return
    (file,) = written
    embedded = pd.read_parquet(file)["image_path"].astype(int)  # clip-retrieval, too, leaves out what it cannot read
    (vectors,) = (folder / "img_emb").iterdir()
    names = [f"the image {table['image_path'][number]} in {shard}" for number in embedded]
    finite.check(np.load(vectors), f"the CLIP {clip_model}", names)
    if len(embedded) < len(table):
        print(f"{shard}: {len(table) - len(embedded)} of {len(table)} images are damaged and left out", flush=True)
    table = table.iloc[embedded].reset_index(drop=True)
    table = table.assign(path=str(shard)) if places else table.drop(columns=["offset", "length"])
    order = [name for name in table if name not in PLACE]
    table[order + (PLACE if places else [])].to_parquet(file, index=False)


def _copy_for_clip(shard: str | Path, copy: Path) -> pd.DataFrame:
    """Copy a shard's images, numbered, as any program sees what every stage sees; returns their metadata.

    Columns: image_path (the key in the shard), what the JSON says, caption, offset, length.
    """
    keys, described, captions, spots, without, unreadable = [], [], [], [], 0, 0
    with images.ShardWriter(copy) as writer:
        for key, sample in images.samples(shard):
            kind = images.picture_in(sample)
            if kind is None:
                without += 1
                continue
            data, offset = sample[kind]
            try:
                writer.add(f"{len(keys):09d}", {"jpg": images.as_seen(data, f"{key} in {shard}")}, of="jpg")
            except ValueError as error:
                unreadable += 1
                print(f"left out: {error}", flush=True)
                continue
            texts_of = {name: member.data for name, member in sample.items() if name in ("json", "txt")}
            said = captioned_pool.facts(texts_of)
            keys.append(files.printable(key))
            captions.append(captioned_pool.caption(texts_of, said))
            described.append(said)
            spots.append((offset, len(data)))
    if without or unreadable:
        total = len(keys) + without + unreadable
        print(
            f"{shard}: {without + unreadable} of {total} samples are left out: {unreadable} images cannot be read, "
            f"{without} have no image (extensions as in {', '.join(images.IMAGE_KEYS)})",
            flush=True,
        )
    # What the shard itself says of places is a stranger's word.
    own = {"image_path", "caption", "metadata", *PLACE}
    table = pd.DataFrame(described, index=range(len(keys)))
    table = table[[name for name in table if name not in own]].apply(_storable)
    table.insert(0, "image_path", keys)
    table["caption"] = captions
    return table.assign(offset=[offset for offset, _ in spots], length=[length for _, length in spots])


def _storable(column: pd.Series) -> pd.Series:
    """A column that Parquet takes: where kinds are mixed, or numbers are too large, all of it as text."""
    import pyarrow as pa

    try:
        pa.array(column, from_pandas=True)
        return column
    except (pa.ArrowException, OverflowError, TypeError):
        return column.map(lambda value: None if value is None else str(value))


def _infer(shard: Path, clip_model: str, folder: Path, batch_size: int) -> None:
    """Run clip-retrieval's inference on a shard of images under the extension jpg."""
    from clip_retrieval.clip_inference.main import main as clip_inference

    clip.read_folders()
    # Its reader cannot be pickled, and its processes for statistics would be waited for without end.
    with processes.forked(), processes.ended_on_error():
        clip_inference(
            input_dataset=str(shard),
            output_folder=str(folder),
            input_format="webdataset",
            clip_model=clip_model,
            enable_text=False,
            enable_metadata=False,
            wds_image_key="jpg",
            batch_size=batch_size,
            num_prepro_workers=1,  # with more, the order of the images would depend on their timing
            output_partition_count=1,
        )
    shutil.rmtree(folder / "stats", ignore_errors=True)  # wall times, nothing anyone reads


def index(embeddings: Sequence[str | Path], folder: str | Path, *, exact: bool, memory: str, threads: int) -> None:
    """Build ``image.index`` over the folders of :func:`embed` and put their metadata beside it: what
    clip-retrieval serves from.

    Left to itself (``exact`` false), autofaiss picks and tunes an approximate index that takes at most ``memory``
    by timing searches, which is what a large pool needs, but neither exact nor the same on each run.
    """
    embeddings = [part for part in embeddings if any(Path(part, "img_emb").iterdir())]
    if not embeddings:
        raise BadInput("no shard of the pool holds an image that can be read; see the logs of embed_pool")
    import faiss
    from autofaiss import build_index

    with whole(folder) as temporary:
        (temporary / "metadata").mkdir(parents=True)
        for part, given in enumerate(embeddings):
            for file in sorted(Path(given, "metadata").iterdir()):
                shutil.copyfile(file, temporary / "metadata" / f"{part:04d}-{file.name}")
        made, _ = build_index(
            embeddings=[str(Path(given, "img_emb")) for given in embeddings],
            save_on_disk=False,  # it would also write timings as JSON, and fails at that with numpy 2
            index_key="Flat" if exact else None,
            max_index_memory_usage=memory,
            current_memory_available=f"{2 * float(memory[:-1]):g}{memory[-1]}",  # building takes more than searching
            should_be_memory_mappable=True,
            nb_cores=threads,
        )
        if made is None:  # autofaiss only logs why
            raise RuntimeError(f"autofaiss built no index within {memory}; see above, or give `pool.memory` more")
        faiss.write_index(made, str(temporary / "image.index"))
