from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.digits.data import write_web
from augbench.study.sections.digits import Digits

write_web(
    snakemake.output.shard,
    snakemake.output.web,
    snakemake.output.planted,
    Digits(**snakemake.params.digits),
    seed=snakemake.params.seed,
)
