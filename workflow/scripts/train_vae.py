from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.models.train_diffusion import train_vae

train = snakemake.params.train
train_vae(
    snakemake.input.shards,
    snakemake.output[0],
    seed=snakemake.params.seed,
    channels=train["vae_channels"],
    steps=train["vae_steps"],
    batch_size=train["vae_batch_size"],
    learning_rate=train["vae_learning_rate"],
    progress=progress(),
    **{key: train[key] for key in ("image_size", "latent_channels", "threads")},
)
