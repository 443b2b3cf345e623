from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import classifiers

params = snakemake.params
classifiers.write(
    snakemake.output[0],
    params.classifiers,
    params.methods,
    params.without,
    metrics=snakemake.input.metrics,
    predictions=snakemake.input.predictions,
)
