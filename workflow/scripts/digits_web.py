from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.digits.data import write_web

write_web(
    snakemake.output.shard,
    snakemake.output.web,
    snakemake.output.planted,
    seed=snakemake.params.seed,
    **snakemake.params.digits,
)
