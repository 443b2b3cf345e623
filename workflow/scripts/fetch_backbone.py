from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench.backbone import resolve

resolve(snakemake.params.model, snakemake.output[0])
