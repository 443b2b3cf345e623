from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench import hashing, images
from augbench.jobs import progress

table = images.read(*snakemake.input).drop_duplicates("image_id", ignore_index=True)
hashing.write(snakemake.output[0], table, hashing.hashes(table, snakemake.threads, progress()))
