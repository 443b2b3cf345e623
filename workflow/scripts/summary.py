from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import tables

tables.write_summary(
    snakemake.output[0],
    snakemake.wildcards.method,
    snakemake.params.method,
    [float(ratio) for ratio in snakemake.params.ratios],
    **dict(snakemake.input.items()),
)
