"""The pool in CLIP space: embeds a captioned pool with clip-retrieval and builds its search index."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from augbench.files import whole


def embed(
    shards: Sequence[str | Path],
    clip_model: str,
    folder: str | Path,
    *,
    image_key: str,
    batch_size: int,
    threads: int,
) -> None:
    """Embed WebDataset shards with ``clip-retrieval inference``.

    Writes ``img_emb/*.npy`` (float, n x dimension, unit length) and ``metadata/*.parquet`` (one row per
    image, in the order of the embeddings). ``clip_model`` is a name that clip-retrieval takes.
    """
    import torch
    from clip_retrieval.clip_inference.main import main as clip_inference

    torch.set_num_threads(threads)
    with whole(folder) as temporary:
        clip_inference(
            input_dataset="{" + ",".join(map(str, shards)) + "}" if len(shards) > 1 else str(shards[0]),
            output_folder=str(temporary),
            input_format="webdataset",
            clip_model=clip_model,
            enable_text=False,
            enable_metadata=True,
            wds_image_key=image_key,
            batch_size=batch_size,
            num_prepro_workers=1,  # with more, the order of the images would depend on their timing
            output_partition_count=1,
        )
        shutil.rmtree(temporary / "stats", ignore_errors=True)  # wall times, nothing anyone reads


def index(embeddings: str | Path, folder: str | Path, *, exact: bool, threads: int) -> None:
    """Build ``image.index`` and copy ``metadata`` beside it: the folder that clip-retrieval serves from.

    Left to itself (``exact`` false), autofaiss picks and tunes an approximate index by timing searches,
    which is what a large pool needs, but neither exact nor the same on each run.
    """
    from autofaiss import build_index

    with whole(folder) as temporary:
        temporary.mkdir()
        with tempfile.TemporaryDirectory() as infos:
            build_index(
                embeddings=str(Path(embeddings, "img_emb")),
                index_path=str(temporary / "image.index"),
                index_infos_path=f"{infos}/infos.json",  # timings again
                index_key="Flat" if exact else None,
                nb_cores=threads,
            )
        shutil.copytree(Path(embeddings, "metadata"), temporary / "metadata")
