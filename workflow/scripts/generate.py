from augbench.jobs import log_to, progress

log_to(snakemake.log[0])

import math

from augbench import sampling, target

settings = dict(snakemake.params.settings)
times, fixed = settings.pop("times"), settings.pop("images_per_class")
size, start = snakemake.params.classes_per_job, int(snakemake.wildcards.shard)
classes = target.read_classes(snakemake.input.classes).iloc[start * size : (start + 1) * size]
key = (snakemake.params.seed, snakemake.wildcards.method, snakemake.wildcards.candidate)
rows = sampling.plan(
    [
        (row[1], row.lemmas, max(fixed or 0, math.ceil(times * row.train)))
        for row in classes.itertuples()
        if not row.excluded
    ],
    snakemake.params.conditioning,
    key,
)
sampling.generate(
    snakemake.input.backbone,
    rows,
    snakemake.output.shard,
    snakemake.output.images,
    key=key,
    progress=progress(),
    **settings,
)
