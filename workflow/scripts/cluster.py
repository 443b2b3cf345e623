from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench import images
from augbench.core import files
from augbench.diffusion import clusters
from augbench.models import clip

embedder = clusters.embedder(snakemake.params.embedding, snakemake.params.clip_model)
tables = {name: images.read(snakemake.input[name]) for name in ("train", "validation")}
vectors = {name: clip.embed(table, embedder, progress()) for name, table in tables.items()}
found = clusters.cluster(**tables, vectors=vectors, counts=snakemake.params.counts, seed=snakemake.params.seed)
with files.whole(snakemake.output[0]) as temporary:
    found.to_parquet(temporary, index=False)
