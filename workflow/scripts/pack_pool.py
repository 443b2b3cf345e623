from augbench.core.progress import progress
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.retrieval.pools import pack

pack(
    [file for file, _, _ in snakemake.params.images],
    snakemake.output[0],
    max_image_size=snakemake.params.max_image_size,
    max_pixels=snakemake.params.max_pixels,
    progress=progress(),
)
