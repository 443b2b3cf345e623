from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench import report

studies = [report.gather(name, f"results/{name}", **study) for name, study in snakemake.params.studies.items()]
report.write(snakemake.output[0], studies)
