from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench.pool import index

index(snakemake.input[0], snakemake.output[0], exact=snakemake.params.exact, threads=snakemake.threads)
