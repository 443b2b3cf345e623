from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench import images
from augbench.dataset import added
from augbench.study import classes

added.write(
    snakemake.output[0],
    snakemake.wildcards.method,
    snakemake.input.place,
    classes.read(snakemake.input.classes),
    images.read(snakemake.input.target, extra=["split"]),
    snakemake.params.unreadable,
    None if snakemake.params.allow_fewer else snakemake.params.ratio,
)
