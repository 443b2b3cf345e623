from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.models.train_diffusion import train_unet
from augbench.study.sections.models import BackboneTraining

train_unet(
    snakemake.input.shards,
    snakemake.input.vae[0],
    snakemake.input.clip,
    snakemake.input.safety,
    snakemake.output[0],
    BackboneTraining(**snakemake.params.train),
    seed=snakemake.params.seed,
    progress=progress(),
)
