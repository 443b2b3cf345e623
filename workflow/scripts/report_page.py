from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import page

page.write(snakemake.output[0], snakemake.input)
