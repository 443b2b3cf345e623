from augbench.jobs import log_to, progress

log_to(snakemake.log[0])

import contextlib
from pathlib import Path

import pandas as pd

from augbench import images, retrieval, web
from augbench.backbone import SafetyChecker

settings = dict(snakemake.params.settings)
counts = retrieval.counts(
    images.read(snakemake.input.images, extra=["split"]), settings.pop("images_per_class"), snakemake.params.ratio
)
classes = pd.read_csv(snakemake.input.classes, dtype=str, keep_default_na=False)
wanted = retrieval.wanted(classes, counts, snakemake.params.conditioning)
pictures = images.read(snakemake.input.web) if snakemake.input.web else None
with web.serve(pictures) if pictures is not None else contextlib.nullcontext() as proxy:
    retrieval.retrieve(
        wanted,
        retrieval.LocalIndex(snakemake.input.index, snakemake.params.clip_model),
        SafetyChecker(snakemake.input.safety),
        Path(snakemake.output.candidates).parent / "downloads",
        snakemake.output.candidates,
        snakemake.output.shard,
        snakemake.output.images,
        proxy=proxy,
        progress=progress(0),
        **settings,
    )
