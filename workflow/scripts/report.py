from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench import compute, exhibits, report

methods, settings = snakemake.params.methods, snakemake.params.settings
studies = [
    report.gather(
        name,
        f"results/{name}",
        {key: methods[key] for key in study["methods"]},
        study,
        snakemake.params.generated[name],
    )
    for name, study in settings.items()
]
for study in studies:
    exhibits.write(study, f"results/{study['study']}")
for path, (name, study) in zip(snakemake.output.compute, settings.items(), strict=True):
    compute.write(path, f"results/{name}", study["methods"])
report.write(snakemake.output.page, studies)
