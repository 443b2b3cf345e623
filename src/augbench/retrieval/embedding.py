"""The pool in CLIP space: embeds its shards with clip-retrieval and builds the index."""

import importlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from augbench import images
from augbench.core import files, finite, processes, resume
from augbench.core.files import BadInput, whole
from augbench.models import captioned_pool, clip
from augbench.retrieval.metadata import PLACE


def embed(
    shards: Sequence[str | Path],
    clip_model: str,
    folder: str | Path,
    *,
    batch_size: int,
    threads: int,
    places: bool = False,
    columns: Mapping[str, str] | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Embed WebDataset shards, or Parquet files of images, with ``clip-retrieval inference``, one after the other.

    Writes ``img_emb/NNNNNN.npy`` (float, n x dimension, unit length) and ``metadata/NNNNNN.parquet`` (one row per
    image, in the order of the embeddings) for each shard that holds an image that can be read. Shards that are done are
    kept beside the folder until all are, so a killed job goes on. ``clip_model`` is a name that clip-retrieval takes;
    ``columns`` as in the section ``pool``. With ``places`` the metadata say where each image lies (path, offset,
    length), so that it need not be downloaded.
    Raises BadInput naming a shard that is damaged.
    """
    import torch

    torch.set_num_threads(threads)
    folder = Path(folder)
    partial = folder.parent / f".{folder.name}.shards"
    done = []
    for number, shard in enumerate(shards):
        done.append(partial / resume.identity(__name__, [clip_model, batch_size, places, columns], [shard])[:32])
        if not done[-1].exists():
            with whole(done[-1]) as temporary:
                _embed_shard(shard, clip_model, temporary, batch_size, places, columns or {})
        progress(number + 1, len(shards), "shards")
    with whole(folder) as temporary:
        for part in ("img_emb", "metadata"):
            (temporary / part).mkdir(parents=True)
            for number, embedded in enumerate(done):
                for file in (embedded / part).iterdir():  # one, or none of a shard without images
                    shutil.copyfile(file, temporary / part / f"{number:06d}{file.suffix}")
    shutil.rmtree(partial, ignore_errors=True)


def _embed_shard(
    shard: str | Path, clip_model: str, folder: Path, batch_size: int, places: bool, columns: Mapping[str, str]
) -> None:
    import numpy as np

    for part in ("img_emb", "metadata"):
        (folder / part).mkdir(parents=True)
    copy = folder.parent / "copy.tar"
    table = _copy_for_clip(shard, copy, columns)
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


def _copy_for_clip(shard: str | Path, copy: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Copy a shard's images, numbered, as any program sees what every stage sees; returns their metadata.

    Columns: image_path (the key in the shard), what the JSON says, caption, offset, length.
    """
    keys, described, captions, spots, without, unreadable = [], [], [], [], 0, 0
    with images.ShardWriter(copy) as writer:
        for key, sample in captioned_pool.samples(shard, columns):
            kind = images.picture_in(sample)
            if kind is None:
                without += 1
                continue
            data, offset, length = sample[kind]
            try:
                writer.add(f"{len(keys):09d}", {"jpg": images.as_seen(data, f"{key} in {shard}")}, image="jpg")
            except ValueError as error:
                unreadable += 1
                print(f"left out: {error}", flush=True)
                continue
            texts_of = {name: member.data for name, member in sample.items() if name in ("json", "txt")}
            said = captioned_pool.facts(texts_of)
            keys.append(files.printable(key))
            captions.append(captioned_pool.caption(texts_of, said))
            described.append(said)
            spots.append((offset, length))
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
    main: Any = importlib.import_module("clip_retrieval.clip_inference.main")  # its package has a function of that name
    worker: Any = importlib.import_module("clip_retrieval.clip_inference.worker")
    main.LoggerReader = worker.LoggerWriter = _NoStatistics
    clip.read_folders()
    clip.emulate_no_bfloat16()
    # Its reader cannot be pickled, and after an error its process would be waited for without end.
    with processes.forked(), processes.ended_on_error():
        main.main(
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


class _NoStatistics:
    """Takes the place of clip-retrieval's two processes for wall times, which nobody reads: they import all of it anew
    for each shard, and take longer than the embedding of a small one."""

    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        pass

    def end(self) -> None:
        pass

    def __call__(self, statistics: dict) -> None:
        pass


def build_index(
    embeddings: Sequence[str | Path], folder: str | Path, *, exact: bool, memory: str, threads: int
) -> None:
    """Build ``image.index`` over the folders of :func:`embed` and put their metadata beside it: what
    clip-retrieval serves from.

    Left to itself (``exact`` false), autofaiss picks and tunes an approximate index that takes at most ``memory``
    by timing searches, which is what a large pool needs, but neither exact nor the same on each run.
    """
    embeddings = [part for part in embeddings if any(Path(part, "img_emb").iterdir())]
    if not embeddings:
        raise BadInput("no shard of the pool holds an image that can be read; see the logs of embed_pool")
    import autofaiss
    import faiss

    with whole(folder) as temporary:
        (temporary / "metadata").mkdir(parents=True)
        for part, embedded in enumerate(embeddings):
            for file in sorted(Path(embedded, "metadata").iterdir()):
                shutil.copyfile(file, temporary / "metadata" / f"{part:04d}-{file.name}")
        built, _ = autofaiss.build_index(
            embeddings=[str(Path(part, "img_emb")) for part in embeddings],
            save_on_disk=False,  # it would also write timings as JSON, and fails at that with numpy 2
            index_key="Flat" if exact else None,
            max_index_memory_usage=memory,
            current_memory_available=f"{2 * float(memory[:-1]):g}{memory[-1]}",  # building takes more than searching
            should_be_memory_mappable=True,
            nb_cores=threads,
        )
        if built is None:  # autofaiss only logs why
            raise RuntimeError(f"autofaiss built no index within {memory}; see above, or raise `pool.memory`")
        faiss.write_index(built, str(temporary / "image.index"))
