from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.models.train_clip import train
from augbench.study.sections.models import ClipTraining

train(
    snakemake.input.shards,
    snakemake.output[0],
    ClipTraining(**snakemake.params.train),
    seed=snakemake.params.seed,
    progress=progress(),
)
