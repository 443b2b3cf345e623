"""The pool in CLIP space: embeds a captioned pool with clip-retrieval and builds its search index."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from augbench import images, resume
from augbench.files import whole


def embed(
    shards: Sequence[str | Path],
    clip_model: str,
    folder: str | Path,
    *,
    batch_size: int,
    threads: int,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Embed WebDataset shards with ``clip-retrieval inference``, one after the other.

    Writes ``img_emb/NNNNNN.npy`` (float, n x dimension, unit length) and ``metadata/NNNNNN.parquet`` (one row per
    image, in the order of the embeddings) for each shard. Shards that are done are kept beside the folder until
    all are, so a killed job goes on. ``clip_model`` is a name that clip-retrieval takes.
    """
    import torch

    torch.set_num_threads(threads)
    folder = Path(folder)
    partial = folder.parent / f".{folder.name}.shards"
    done = []
    for number, shard in enumerate(shards):
        done.append(partial / resume.identity("pool", [clip_model, batch_size], [shard])[:32])
        if not done[-1].exists():
            with whole(done[-1]) as temporary:
                _embed_shard(shard, clip_model, temporary, batch_size)
        progress(number + 1, len(shards), "shards")
    with whole(folder) as temporary:
        for part in ("img_emb", "metadata"):
            (temporary / part).mkdir(parents=True)
            for number, made in enumerate(done):
                (file,) = (made / part).iterdir()
                shutil.copyfile(file, temporary / part / f"{number:06d}{file.suffix}")
    shutil.rmtree(partial, ignore_errors=True)


def _embed_shard(shard: str | Path, clip_model: str, folder: Path, batch_size: int) -> None:
    from clip_retrieval.clip_inference.main import main as clip_inference

    clip_inference(
        input_dataset=str(shard),
        output_folder=str(folder),
        input_format="webdataset",
        clip_model=clip_model,
        enable_text=False,
        enable_metadata=True,
        wds_image_key=images.image_key(shard),
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
    from autofaiss import build_index

    with whole(folder) as temporary, tempfile.TemporaryDirectory() as infos:
        (temporary / "metadata").mkdir(parents=True)
        for part, given in enumerate(embeddings):
            for file in sorted(Path(given, "metadata").iterdir()):
                shutil.copyfile(file, temporary / "metadata" / f"{part:04d}-{file.name}")
        build_index(
            embeddings=[str(Path(given, "img_emb")) for given in embeddings],
            index_path=str(temporary / "image.index"),
            index_infos_path=f"{infos}/infos.json",  # timings again
            index_key="Flat" if exact else None,
            max_index_memory_usage=memory,
            nb_cores=threads,
        )
