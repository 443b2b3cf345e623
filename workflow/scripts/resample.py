from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench import images, target
from augbench.resampling import resample

classes = target.read_classes(snakemake.input.classes)
counts = {row[1]: row.train for row in classes.itertuples() if not row.excluded}
splits = resample(
    images.read(*snakemake.input.images),
    counts,
    ratio=float(snakemake.wildcards.ratio),
    splits=len(snakemake.output),
    order={"noise": "random", "pool": "similarity", "more_real": "all"}[snakemake.params.start],
    seed_key=(snakemake.params.seed, "resample", snakemake.wildcards.method),
)
for path, split in zip(snakemake.output, splits, strict=True):
    images.write(path, split)
