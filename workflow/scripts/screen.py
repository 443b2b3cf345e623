from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)

    from pathlib import Path

    import pandas as pd

    from augbench import images
    from augbench.classifier import training
    from augbench.core import files
    from augbench.core.seeds import derive
    from augbench.diffusion import selection
    from augbench.jobs import launching
    from augbench.study import classes

    given = snakemake.input
    settings = {key: value for key, value in snakemake.params.settings.items() if key != "processes"}
    candidates = selection.candidates([Path(folder) for folder in given.finetuned])
    mine = candidates[int(snakemake.wildcards.part) :: snakemake.params.parts]
    train, validation, made = images.read(given.train), images.read(given.validation), images.read(*given.images)
    for candidate in mine:
        print(f"classifier for {candidate['candidate']}", flush=True)
        added = made[made["candidate"] == candidate["candidate"]]
        folder = Path(snakemake.output[0]).parent / candidate["candidate"]
        job = {
            "train": pd.concat([train, added], ignore_index=True),
            "validation": validation,
            "test": validation,  # the test images take no part in a selection
            "classes": [about["class"] for about in classes.kept(given.classes)],
            "folder": str(folder),
            "seed": derive(snakemake.params.seed, "classifier", 1),
            "save_minutes": snakemake.params.save_minutes,
        }
        launching.run(
            training.train,
            job | settings,
            folder / ".processes",
            processes=snakemake.resources.gpu,
            threads=settings["threads"],
        )
        candidate["validation_accuracy"] = files.read_json(folder / "metrics.json")["best_validation_accuracy"]
    files.write_json(snakemake.output[0], mine)
    for candidate in mine:
        training.forget(Path(snakemake.output[0]).parent / candidate["candidate"])
