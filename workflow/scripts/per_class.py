from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import per_class

per_class.write(snakemake.output.accuracies, snakemake.output.confusions, snakemake.params.methods, snakemake.input)
