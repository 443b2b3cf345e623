from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.diffusion import clusters

params = snakemake.params
clusters.write(
    snakemake.output[0],
    snakemake.input.train,
    snakemake.input.validation,
    counts=params.counts,
    embedder=clusters.embedder(params.embedding, params.clip_model),
    seed=params.seed,
    progress=progress(),
)
