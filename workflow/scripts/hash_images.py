from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench import images
from augbench.audit import hashes
from augbench.core.progress import progress

table, _ = images.read_distinct(*snakemake.input)
hashes.write(snakemake.output[0], table, hashes.hashes(table, snakemake.threads, progress()))
