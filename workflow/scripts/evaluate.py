from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)

    from pathlib import Path

    from augbench import images
    from augbench.classifier.runs import score_runs
    from augbench.study import classes
    from augbench.study.sections.classifier import Classifier

    rows = classes.kept(snakemake.input.classes)
    score_runs(
        Classifier(**snakemake.params.settings),
        images.read_columns(snakemake.input.images),
        [row["class"] for row in rows],
        snakemake.input.added,
        [Path(file).parent for file in snakemake.input.weights],
        snakemake.output,
        [row["class"] for row in rows if not row["wanted"]],
    )
