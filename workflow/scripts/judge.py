from pathlib import Path

from augbench import classes, classifier, distributed, domain_gap, images
from augbench.jobs import log_to, take_gpus
from augbench.seeds import derive

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
    distributed.run("classifier:train", job, folder / ".processes", processes=snakemake.resources.gpu)
    classifier.forget(folder)
