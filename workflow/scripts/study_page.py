from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench import compute, exhibits, report

((name, shown),) = snakemake.params.studies.items()
folder = f"results/{name}"
study = report.gather(name, folder, **shown)
exhibits.write(study, folder, snakemake.params.figures)
compute.write(snakemake.output.compute, folder, shown["settings"]["methods"])
report.write(snakemake.output.page, [study])
