from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

import pandas as pd

from augbench.audit import review

given = snakemake.params
review.write(
    snakemake.output[0],
    pd.read_parquet(snakemake.input.candidates),
    study=snakemake.wildcards.study,
    method=snakemake.wildcards.method,
    title=given.title,
    size=given.inspected,
    in_full=given.in_full,
    seed=given.seed,
)
