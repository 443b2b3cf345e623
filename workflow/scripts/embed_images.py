from augbench.jobs import log_to, progress, take_gpus

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

import numpy as np

from augbench import clip, copies, images

table = images.read(*snakemake.input.tables).drop_duplicates("image_id", ignore_index=True)
detector = snakemake.params.detector
embedder = clip.Clip(snakemake.params.clip).pictures if detector == "clip" else None
embedder = embedder or copies.scripted(detector, snakemake.params.image_size)
vectors = clip.embed(table, embedder, progress()) if len(table) else np.zeros((0, 1), np.float32)
copies.write(snakemake.output[0], table, vectors)
