from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

import pandas as pd

from augbench import images
from augbench.dataset import exclusion
from augbench.study import classes

table = images.read(snakemake.input.images, extra=["split"])
exclusion.write_dataset(
    pd.read_csv(snakemake.input.classes, dtype=str, keep_default_na=False),
    table,
    exclusion.shortfall(
        dict(zip(snakemake.params.titles, map(pd.read_parquet, snakemake.input.ledgers), strict=True)),
        classes.retrieved(table, snakemake.params.images_per_class, snakemake.params.ratio, snakemake.params.fill_to),
    ),
    snakemake.output.classes,
    snakemake.output.splits,
    snakemake.params.fill_to,
)
