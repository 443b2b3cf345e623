from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench import images
from augbench.dataset.export import export
from augbench.study import classes

export(
    snakemake.wildcards.form,
    images.read(snakemake.input.train),
    images.read(*snakemake.input.added),
    classes.kept(snakemake.input.classes),
    snakemake.output[0],
    snakemake.params.card,
    snakemake.input.classifier or None,
)
