from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench.pool import index

index(
    list(snakemake.input),
    snakemake.output[0],
    exact=snakemake.params.exact,
    memory=snakemake.params.memory,
    threads=snakemake.threads,
)
