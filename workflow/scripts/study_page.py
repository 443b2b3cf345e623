from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import catalogue, compute, page

((name, shown),) = snakemake.params.studies.items()
folder = f"results/{name}"
study = page.gather(name, folder, **shown)
catalogue.write(study, folder, snakemake.params.figures)
compute.write(snakemake.output.compute, folder, shown["settings"]["methods"])
page.write(snakemake.output.page, [study])
