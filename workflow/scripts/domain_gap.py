from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.report import domain_gap

domain_gap.write(
    snakemake.output[0], snakemake.params.methods, snakemake.params.classifier, **dict(snakemake.input.items())
)
