from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench import images
from augbench.classifier import zero_shot
from augbench.models import clip
from augbench.study import classes

zero_shot.write(
    snakemake.output.metrics,
    snakemake.output.predictions,
    images.read_columns(snakemake.input.test),
    classes.kept(snakemake.input.classes),
    clip.Clip(snakemake.params.clip),
    progress(),
)
