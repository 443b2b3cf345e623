from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.core import files
from augbench.dataset.resampling import write_sets
from augbench.study import classes

selection = snakemake.input.get("selection")
write_sets(
    snakemake.output,
    snakemake.input.images,
    {row["class"]: row["wanted"] for row in classes.kept(snakemake.input.classes)},
    candidate=files.read_json(selection)["candidate"] if selection else None,
    ratio=float(snakemake.wildcards.ratio),
    order=snakemake.params.order,
    seed_key=(snakemake.params.seed, "resample", snakemake.wildcards.method),
    allow_fewer=snakemake.params.allow_fewer,
)
