from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

import pandas as pd

from augbench.audit import review

params = snakemake.params
review.write(
    snakemake.output[0],
    pd.read_parquet(snakemake.input.candidates),
    study=snakemake.wildcards.study,
    method=snakemake.wildcards.method,
    title=params.title,
    size=params.inspected,
    in_full=params.in_full,
    seed=params.seed,
)
