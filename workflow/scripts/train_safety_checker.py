from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.models.train_diffusion import train_safety_checker

train_safety_checker(
    snakemake.input.shards,
    snakemake.input.clip,
    snakemake.output[0],
    seed=snakemake.params.seed,
    unsafe_words=snakemake.params.unsafe_words,
    threads=snakemake.params.threads,
    progress=progress(),
)
