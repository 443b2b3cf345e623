from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from pathlib import Path

from augbench.audit import duplicates

duplicates.audit_files(
    Path(snakemake.output.summary).parent,
    snakemake.params.references,
    [float(ratio) for ratio in snakemake.params.ratios],
    snakemake.params.threshold,
    snakemake.threads,
    **dict(snakemake.input.items()),
)
