from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench import files
from augbench.summary import summarise

runs = len(snakemake.input.metrics) // len(snakemake.params.ratios)
files.write_json(
    snakemake.output[0],
    summarise(
        snakemake.wildcards.method,
        snakemake.params.method,
        [files.read_json(path) for path in snakemake.input.metrics[:runs]],
        files.read_json(snakemake.input.audit) if snakemake.input.audit else None,
        float(snakemake.params.ratios[0]),
    ),
)
