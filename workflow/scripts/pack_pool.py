from augbench.jobs import log_to, progress

log_to(snakemake.log[0])

from augbench.pool import pack

pack(
    [file for file, _, _ in snakemake.params.images],
    snakemake.output[0],
    max_image_size=snakemake.params.max_image_size,
    max_pixels=snakemake.params.max_pixels,
    progress=progress(),
)
