from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)

    import functools
    from pathlib import Path

    from augbench import images
    from augbench.classifier.runs import Trainer, train_runs
    from augbench.jobs import launching
    from augbench.study import classes
    from augbench.study.recipes import Recipe
    from augbench.study.sections.classifier import Classifier

    rows = classes.kept(snakemake.input.classes)
    train_runs(
        Trainer(
            Classifier(**snakemake.params.settings),
            snakemake.params.save_minutes,
            functools.partial(launching.run, processes=snakemake.resources.gpu),
            Recipe(**snakemake.params.recipe),
            list(zip(snakemake.input.features, snakemake.params.featured, strict=True)),
        ),
        {name: images.read_columns(snakemake.input[name]) for name in ("train", "validation", "test")},
        [row["class"] for row in rows],
        snakemake.input.added,
        dict(zip(snakemake.params.runs, (Path(file).parent for file in snakemake.output.metrics), strict=True)),
        snakemake.params.seed,
        [row["class"] for row in rows if not row["wanted"]],
    )
