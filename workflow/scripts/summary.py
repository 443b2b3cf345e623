from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

import pandas as pd

from augbench import images
from augbench.core import files
from augbench.report.tables import summarise

given, classifier = snakemake.input, snakemake.params.classifier
metrics = [files.read_json(path) for path in given.metrics]
added = [list(pd.read_parquet(path, columns=["image_id"])["image_id"]) for path in given.added]
ratios = [float(ratio) for ratio in snakemake.params.ratios]
runs = len(metrics) // len(ratios)


def by_ratio(values):
    return {ratio: values[place * runs : (place + 1) * runs] for place, ratio in enumerate(ratios)}


files.write_json(
    snakemake.output[0],
    summarise(
        snakemake.wildcards.method,
        snakemake.params.method,
        by_ratio(metrics),
        by_ratio(added),
        files.read_json(given.audit) if given.audit else None,
        train=len(images.read(given.train)),
        tested=len(images.read(given.test)),
        batch_size=classifier["batch_size"],
        processes=classifier["processes"],
    ),
)
