from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.dataset import evaluation_sets
from augbench.study import classes
from augbench.study.sections.evaluation import EvaluationSet

evaluation_sets.write(
    snakemake.output[0],
    EvaluationSet(**snakemake.params.section),
    classes.read(snakemake.input.classes),
    snakemake.params.unreadable,
    snakemake.threads,
)
