from pathlib import Path

from augbench import images
from augbench.classifier import training
from augbench.core.seeds import derive
from augbench.jobs import launching
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to
from augbench.report import domain_gap
from augbench.study import classes

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)
    given, settings = snakemake.input, snakemake.params.settings
    kept = classes.kept(given.classes)
    learnt, held_out = domain_gap.judge_sets(
        images.read(*given.reserve),
        images.read(given.validation),
        {about["class"]: about["train"] for about in kept},
        snakemake.params.seed,
    )
    folder = Path(snakemake.output.metrics).parent
    job = {
        "train": learnt,
        "validation": held_out,
        "test": images.read(given.test),
        "classes": [about["class"] for about in kept],
        "folder": str(folder),
        "seed": derive(snakemake.params.seed, "judge"),
        "save_minutes": snakemake.params.save_minutes,
    }
    job |= {key: value for key, value in settings.items() if key != "processes"}
    launching.run(
        training.train, job, folder / ".processes", processes=snakemake.resources.gpu, threads=settings["threads"]
    )
    training.forget(folder)
