from augbench.jobs import log_to

log_to(snakemake.log[0] if snakemake.log else None)

from augbench.backbone import resolve

resolve(snakemake.params.model, snakemake.output[0])
