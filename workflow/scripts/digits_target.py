from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.digits.data import write_target

write_target(
    snakemake.output.folder,
    snakemake.output.classes,
    seed=snakemake.params.seed,
    test=snakemake.params.test,
    web=snakemake.params.web_scans,
)
