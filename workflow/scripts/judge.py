from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)

    import functools
    from pathlib import Path

    from augbench import images
    from augbench.classifier.runs import Trainer
    from augbench.jobs import launching
    from augbench.report import domain_gap
    from augbench.study import classes
    from augbench.study.sections.classifier import Classifier

    domain_gap.train_judge(
        Trainer(
            Classifier(**snakemake.params.settings),
            snakemake.params.save_minutes,
            functools.partial(launching.run, processes=snakemake.resources.gpu),
        ),
        {
            "reserve": images.read_columns(*snakemake.input.reserve),
            "validation": images.read_columns(snakemake.input.validation),
            "test": images.read_columns(snakemake.input.test),
        },
        classes.kept(snakemake.input.classes),
        Path(snakemake.output.metrics).parent,
        snakemake.params.seed,
    )
