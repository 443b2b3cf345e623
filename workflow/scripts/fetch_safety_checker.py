from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.models.backbones import resolve_checker

resolve_checker(snakemake.params.model, snakemake.output[0])
