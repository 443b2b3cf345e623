from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.diffusion import latents

latents.encode(
    snakemake.input.backbone,
    {snakemake.input[name]: path for name, path in snakemake.output.items()},
    image_size=snakemake.params.image_size,
    mirrored=snakemake.params.mirrored,
    threads=snakemake.params.threads,
    at_most={snakemake.input.validation: snakemake.params.validation_images},
    progress=progress(),
)
