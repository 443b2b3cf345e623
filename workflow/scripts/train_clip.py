from augbench.jobs import log_to, progress

log_to(snakemake.log[0])

from augbench.clip_training import train

train(
    snakemake.input.shards,
    snakemake.output[0],
    seed=snakemake.params.seed,
    progress=progress(),
    **snakemake.params.train,
)
