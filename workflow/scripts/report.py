from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import page

studies = [page.gather(name, f"results/{name}", **study) for name, study in snakemake.params.studies.items()]
page.write(snakemake.output[0], studies)
