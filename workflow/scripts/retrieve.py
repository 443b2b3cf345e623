from augbench.jobs import log_to, progress

log_to(snakemake.log[0])

import contextlib
from pathlib import Path

import pandas as pd

from augbench import images, neighbours, retrieval, web
from augbench.backbone import SafetyChecker

settings, pool, given = dict(snakemake.params.settings), snakemake.params.pool, snakemake.input
counts = retrieval.counts(
    images.read(given.images, extra=["split"]), settings.pop("images_per_class"), snakemake.params.ratio
)
classes = pd.read_csv(given.classes, dtype=str, keep_default_na=False)
wanted = retrieval.wanted(classes, counts, snakemake.params.conditioning)
work = Path(snakemake.output.ledger).parent / "downloads"
if pool["source"] == "service":
    source = neighbours.Service(pool["url"], pool["index"], pause=pool["pause"])
else:
    source = neighbours.LocalIndex(given.index[0], snakemake.params.clip_model, work)
fetch = {
    "timeout": settings.pop("timeout"),
    "retries": settings.pop("retries"),
    "max_bytes": settings.pop("max_bytes"),
    "threads": settings.pop("download_threads"),
    "networks": settings.pop("allowed_networks"),
}
pictures = images.read(given.web) if given.web else None
with web.serve(pictures) if pictures is not None else contextlib.nullcontext() as proxy:
    retrieval.retrieve(
        wanted,
        source,
        SafetyChecker(given.safety),
        work,
        snakemake.output.ledger,
        snakemake.output.shard,
        snakemake.output.images,
        fetch=fetch | {"proxy": proxy},
        progress=progress(0),
        **settings,
    )
