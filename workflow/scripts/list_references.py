from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench import images
from augbench.dataset.references import folder_table

images.write(snakemake.output[0], folder_table(snakemake.input[0], snakemake.params.unreadable))
