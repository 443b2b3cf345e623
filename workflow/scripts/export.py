from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench import classes, images
from augbench.export import export

export(
    snakemake.wildcards.form,
    images.read(snakemake.input.train),
    images.read(*snakemake.input.added),
    classes.kept(snakemake.input.classes),
    snakemake.output[0],
    snakemake.params.about,
)
