from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import evaluation

evaluation.write(
    snakemake.output[0],
    snakemake.params.methods,
    snakemake.params.sets,
    snakemake.input.own,
    snakemake.input.further,
)
