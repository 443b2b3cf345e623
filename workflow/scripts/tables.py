from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.report import comparison
from augbench.study import classes

comparison.write_tables(
    dict(snakemake.output.items()),
    snakemake.input.summaries,
    snakemake.input.predictions,
    {row["class"]: row["train"] for row in classes.kept(snakemake.input.classes)},
    snakemake.input.paper,
    snakemake.params.methods,
    snakemake.params.dataset,
)
