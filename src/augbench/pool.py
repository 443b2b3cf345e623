"""The pool in CLIP space: makes shards of captioned images, embeds them with clip-retrieval, builds the index."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from augbench import fetching, finite, images, resume, waiting
from augbench.files import whole
from augbench.neighbours import AESTHETIC, CAPTION, PLACE, URL

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


# --- shards ---------------------------------------------------------------------------------------------


def listing(folder: str | Path) -> list[str]:
    """The image files below a folder, sorted; symbolic links to folders are followed."""
    return sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if os.path.splitext(name)[1].lower() in EXTENSIONS
    )


def pack(
    files: Sequence[str | Path],
    shard: str | Path,
    *,
    max_image_size: int,
    max_pixels: int,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """A shard of image files; the caption of ``NAME.jpg`` stands in ``NAME.txt`` beside it, where there is one."""

    def samples():
        for number, file in enumerate(map(Path, files)):
            text = file.with_suffix(".txt")
            caption = text.read_text(encoding="utf-8", errors="replace").strip() if text.is_file() else None
            yield str(file), file.read_bytes(), {"caption": caption, "file": str(file)}
            progress(number + 1, len(files), "images packed")

    _write_shard(samples(), shard, max_image_size, max_pixels)


def url_list(files: Sequence[str | Path], start: int, stop: int) -> pd.DataFrame:
    """Rows ``start`` to ``stop`` of Parquet files: columns url, caption, aesthetic; null where they say nothing.

    Raises ValueError when no column is called like a URL.
    """
    import pyarrow.dataset

    rows = pyarrow.dataset.dataset(list(map(str, files)), format="parquet")
    columns = {
        name: next((known for known in names if known in rows.schema.names), None)
        for name, names in {"url": URL, "caption": CAPTION, "aesthetic": AESTHETIC}.items()
    }
    if not columns["url"]:
        raise ValueError(f"{files[0]} has no column {' or '.join(URL)} (it has {', '.join(rows.schema.names)})")
    table = rows.take(list(range(start, stop)), columns=[name for name in columns.values() if name])
    return pd.DataFrame({name: table[known].to_pandas() if known else None for name, known in columns.items()})


def download(
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

    ``fetch`` holds settings of :func:`augbench.fetching.fetch`, which keeps what it downloads in ``work``.
    """
    rows = rows.dropna(subset="url").drop_duplicates("url")
    found = fetching.fetch(list(rows["url"]), work, **fetch)
    facts = rows.set_index("url")

    def samples():
        for row in found[found["fate"] == "fetched"].itertuples():
            about = {name: None if pd.isna(value) else value for name, value in facts.loc[row.url].items()}
            yield row.url, images.load_bytes(row), about | {"url": row.url, "sha256": row.sha256}

    unreadable = _write_shard(samples(), shard, max_image_size, max_pixels)
    bad = found["url"].isin(unreadable.keys())
    found.loc[bad, "fate"], found.loc[bad, "reason"] = "unreadable", found.loc[bad, "url"].map(unreadable)
    print(found["fate"].value_counts().to_string(), flush=True)
    with whole(ledger) as temporary:
        found[["url", "fate", "reason"]].to_parquet(temporary, index=False)


def _write_shard(samples: Iterable, shard: str | Path, max_image_size: int, max_pixels: int) -> dict[str, str]:
    """Write (name, bytes, facts) as a WebDataset shard; returns names of images that cannot be read, with reasons."""
    unreadable = {}
    with whole(shard) as temporary, images.ShardWriter(temporary) as writer:
        for number, (name, data, facts) in enumerate(samples):
            try:
                _, data = images.portable(data, max_image_size, max_pixels)
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
    image, in the order of the embeddings) for each shard. Shards that are done are kept beside the folder until
    all are, so a killed job goes on. ``clip_model`` is a name that clip-retrieval takes. With ``places`` the
    metadata say where each image lies (path, offset, length), so that it need not be downloaded.
    """
    import torch

    torch.set_num_threads(threads)
    folder = Path(folder)
    partial = folder.parent / f".{folder.name}.shards"
    done = []
    for number, shard in enumerate(shards):
        done.append(partial / resume.identity("pool", [clip_model, batch_size, places], [shard])[:32])
        if not done[-1].exists():
            with whole(done[-1]) as temporary:
                _embed_shard(shard, clip_model, temporary, batch_size, places)
        progress(number + 1, len(shards), "shards")
    with whole(folder) as temporary:
        for part in ("img_emb", "metadata"):
            (temporary / part).mkdir(parents=True)
            for number, made in enumerate(done):
                (file,) = (made / part).iterdir()
                shutil.copyfile(file, temporary / part / f"{number:06d}{file.suffix}")
    shutil.rmtree(partial, ignore_errors=True)


def _embed_shard(shard: str | Path, clip_model: str, folder: Path, batch_size: int, places: bool) -> None:
    import numpy as np
    from clip_retrieval.clip_inference.main import main as clip_inference

    kind, described = images.image_key(shard)
    with waiting.ended_on_error():  # its processes for statistics would be waited for without end
        clip_inference(
            input_dataset=str(shard),
            output_folder=str(folder),
            input_format="webdataset",
            clip_model=clip_model,
            enable_text=False,
            enable_metadata=described,
            wds_image_key=kind,
            batch_size=batch_size,
            num_prepro_workers=1,  # with more, the order of the images would depend on their timing
            output_partition_count=1,
        )
    shutil.rmtree(folder / "stats", ignore_errors=True)  # wall times, nothing anyone reads
    (file,) = (folder / "metadata").iterdir()
    table = pd.read_parquet(file)
    (vectors,) = (folder / "img_emb").iterdir()
    names = [f"the image {key} in {shard}" for key in table["image_path"]]
    finite.check(np.load(vectors), f"the CLIP {clip_model}", names)
    captions = {
        key: _caption(sample) for key, sample in images.read_shard(shard) if sample.keys() & set(images.IMAGE_KEYS)
    }
    if len(table) < len(captions):
        print(
            f"{shard}: {len(captions) - len(table)} of {len(captions)} images are left out: they cannot be read, or "
            f"are not {kind}{' with a json' if described else ''} like the first",
            flush=True,
        )
    table["caption"] = table["image_path"].map(captions)  # clip-retrieval drops them without their embeddings
    # What the shard itself says of places is a stranger's word.
    table = table.drop(columns=[name for name in PLACE if name in table])
    if places:
        where = dict(images.member_places(shard))
        found = [where[f"{key}.{kind}"] for key in table["image_path"]]
        table = table.assign(path=str(shard), offset=[o for o, _ in found], length=[n for _, n in found])
    table.to_parquet(file, index=False)


def _caption(sample: Mapping[str, bytes]) -> str | None:
    text = sample.get("txt")
    return text.decode("utf-8", errors="replace") if text is not None else None


def index(embeddings: Sequence[str | Path], folder: str | Path, *, exact: bool, memory: str, threads: int) -> None:
    """Build ``image.index`` over the folders of :func:`embed` and put their metadata beside it: what
    clip-retrieval serves from.

    Left to itself (``exact`` false), autofaiss picks and tunes an approximate index that takes at most ``memory``
    by timing searches, which is what a large pool needs, but neither exact nor the same on each run.
    """
    from autofaiss import build_index

    with whole(folder) as temporary, tempfile.TemporaryDirectory() as infos:
        (temporary / "metadata").mkdir(parents=True)
        for part, given in enumerate(embeddings):
            for file in sorted(Path(given, "metadata").iterdir()):
                shutil.copyfile(file, temporary / "metadata" / f"{part:04d}-{file.name}")
        made, _ = build_index(
            embeddings=[str(Path(given, "img_emb")) for given in embeddings],
            index_path=str(temporary / "image.index"),
            index_infos_path=f"{infos}/infos.json",  # timings again
            index_key="Flat" if exact else None,
            max_index_memory_usage=memory,
            current_memory_available=f"{2 * float(memory[:-1]):g}{memory[-1]}",  # building takes more than searching
            should_be_memory_mappable=True,
            nb_cores=threads,
        )
        if made is None:  # autofaiss only logs why
            raise RuntimeError(f"autofaiss built no index within {memory}; see above, or give `pool.memory` more")
