from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import comparison

comparison.write_tables(
    dict(snakemake.output.items()),
    snakemake.input.summaries,
    snakemake.input.predictions,
    snakemake.input.paper,
    snakemake.params.methods,
    snakemake.params.dataset,
)
