from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.models.backbones import resolve

params = snakemake.params
resolve(params.model, snakemake.output[0], params.has_checker, revision=params.revision, variant=params.variant)
