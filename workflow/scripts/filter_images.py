from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.dataset import filtering
from augbench.study import classes

filtering.write(
    dict(snakemake.output.items()),
    snakemake.input.tables,
    snakemake.input.scores,
    {row["class"]: row["wanted"] for row in classes.kept(snakemake.input.classes)},
    method=snakemake.wildcards.method,
    rule=snakemake.params.rule,
    leaks=snakemake.params.leaks,
    ratio=snakemake.params.ratio,
)
