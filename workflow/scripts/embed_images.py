from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

import numpy as np

from augbench import images
from augbench.images import embeddings
from augbench.models import clip, copy_detectors

table, _ = images.read_distinct(*snakemake.input.tables)
detector = snakemake.params.detector
embedder = clip.Clip(snakemake.params.clip).pictures if detector == "clip" else None
embedder = embedder or copy_detectors.scripted(detector, snakemake.params.image_size)
vectors = clip.embed(table, embedder, progress()) if len(table) else np.zeros((0, 1), np.float32)
embeddings.write(snakemake.output[0], table, vectors)
