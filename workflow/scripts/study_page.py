from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import study_page

study_page.write(
    snakemake.wildcards.study,
    snakemake.params.study,
    snakemake.params.methods,
    snakemake.params.files,
    snakemake.params.jobs,
    dict(snakemake.output.items()),
)
