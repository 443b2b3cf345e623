from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.dataset.unions import Part, write_sets
from augbench.study import classes

write_sets(
    snakemake.output,
    snakemake.input.sets,
    {row["class"]: row["wanted"] for row in classes.kept(snakemake.input.classes)},
    parts=[Part(**part) for part in snakemake.params.parts],
    ratio=float(snakemake.wildcards.ratio),
    seed_key=(snakemake.params.seed, "unite", snakemake.wildcards.method),
)
