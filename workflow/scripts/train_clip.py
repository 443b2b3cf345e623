from augbench.jobs import log_to, progress, take_gpus

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.clip_training import train

train(
    snakemake.input.shards,
    snakemake.output[0],
    seed=snakemake.params.seed,
    progress=progress(),
    **snakemake.params.train,
)
