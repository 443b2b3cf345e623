from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench import images
from augbench.dataset.added import run_script
from augbench.study import classes

run_script(
    snakemake.input.script,
    images.read(snakemake.input.train),
    classes.kept(snakemake.input.classes),
    snakemake.output[0],
)
