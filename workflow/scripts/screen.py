from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)

    import functools
    from pathlib import Path

    from augbench import images
    from augbench.classifier.runs import Trainer, compare_candidates
    from augbench.diffusion import selection
    from augbench.jobs import launching
    from augbench.study import classes
    from augbench.study.recipes import Recipe
    from augbench.study.sections.classifier import Classifier

    candidates = selection.candidates([Path(folder) for folder in snakemake.input.finetuned])
    compare_candidates(
        Trainer(
            Classifier(**snakemake.params.settings),
            snakemake.params.save_minutes,
            functools.partial(launching.run, processes=snakemake.resources.gpu),
            Recipe(**snakemake.params.recipe),
        ),
        {
            "train": images.read_columns(snakemake.input.train),
            "validation": images.read_columns(snakemake.input.validation),
            "generated": images.read_columns(*snakemake.input.images, columns=[*images.REFERENCE, "candidate"]),
        },
        [row["class"] for row in classes.kept(snakemake.input.classes)],
        candidates[int(snakemake.wildcards.part) :: snakemake.params.parts],
        snakemake.output[0],
        snakemake.params.seed,
    )
