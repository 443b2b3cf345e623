from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench import images
from augbench.core import files
from augbench.dataset.resampling import resample
from augbench.study import classes

added = images.read(*snakemake.input.images)
if snakemake.input.get("selection"):  # of the images made for comparison, those of the chosen candidate
    added = added[added["candidate"] == files.read_json(snakemake.input.selection)["candidate"]]
splits = resample(
    added,
    {row["class"]: row["train"] for row in classes.kept(snakemake.input.classes)},
    ratio=float(snakemake.wildcards.ratio),
    splits=len(snakemake.output),
    order=snakemake.params.order,
    seed_key=(snakemake.params.seed, "resample", snakemake.wildcards.method),
    allow_fewer=snakemake.params.allow_fewer,
)
for path, split in zip(snakemake.output, splits, strict=True):
    images.write(path, split)
