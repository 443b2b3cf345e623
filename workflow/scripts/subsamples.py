from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import subsamples

subsamples.write(
    snakemake.output[0],
    snakemake.params.methods,
    snakemake.input,
    snakemake.params.without,
)
