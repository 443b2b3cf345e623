from augbench.jobs import log_to, progress

log_to(snakemake.log[0] if snakemake.log else None)

from augbench.clip_training import train

train(
    snakemake.input.shards,
    snakemake.output[0],
    seed=snakemake.params.seed,
    progress=progress(),
    **snakemake.params.train,
)
