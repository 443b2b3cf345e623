from pathlib import Path

import pandas as pd

from augbench import classifier, images, target
from augbench.jobs import log_to, progress
from augbench.seeds import derive

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    classes = target.read_classes(snakemake.input.classes)
    classes = list(classes["class"][classes["excluded"] == ""])
    train, validation, test = (images.read(snakemake.input[name]) for name in ("train", "validation", "test"))
    for place, run in enumerate(snakemake.params.runs):
        print(f"run {run}", flush=True)
        added = images.read(snakemake.input.added[place]) if snakemake.input.added else images.read()
        classifier.train(
            pd.concat([train, added], ignore_index=True),
            validation,
            test,
            classes,
            Path(snakemake.output.metrics[place]).parent,
            # The same seed for every method: run k of two methods differs in its images alone.
            seed=derive(snakemake.params.seed, "classifier", run),
            progress=progress(),
            **snakemake.params.settings,
        )
