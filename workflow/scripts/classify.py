from pathlib import Path

import pandas as pd

from augbench import images
from augbench.classifier import training
from augbench.core.seeds import derive
from augbench.jobs import launching
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to
from augbench.study import classes

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)
    settings = {key: value for key, value in snakemake.params.settings.items() if key != "processes"}
    names = [about["class"] for about in classes.kept(snakemake.input.classes)]
    train, validation, test = (images.read(snakemake.input[name]) for name in ("train", "validation", "test"))
    for place, run in enumerate(snakemake.params.runs):
        print(f"run {run}", flush=True)
        added = images.read(snakemake.input.added[place]) if snakemake.input.added else images.read()
        # A class that retrieval could not fill at this ratio takes no part (paper, Figure 5B).
        known = [name for name in names if name in set(added["class"])] if len(added) else names
        tables = [table[table["class"].isin(known)] for table in (train, validation, test)]
        folder = Path(snakemake.output.metrics[place]).parent
        job = {
            "train": pd.concat([tables[0], added], ignore_index=True),
            "validation": tables[1],
            "test": tables[2],
            "classes": known,
            "folder": str(folder),
            # The same seed for every method: run k of two methods differs in its images alone.
            "seed": derive(snakemake.params.seed, "classifier", run),
            "save_minutes": snakemake.params.save_minutes,
        }
        launching.run(
            training.train,
            job | settings,
            folder / ".processes",
            processes=snakemake.resources.gpu,
            threads=settings["threads"],
        )
    for path in snakemake.output.metrics:
        training.forget(Path(path).parent)
