from augbench.jobs import log_to, take_gpus

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)

    from pathlib import Path

    import pandas as pd

    from augbench import classes, classifier, distributed, files, images, selection
    from augbench.seeds import derive

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
        distributed.run("classifier:train", job | settings, folder / ".processes", processes=snakemake.resources.gpu)
        candidate["validation_accuracy"] = files.read_json(folder / "metrics.json")["best_validation_accuracy"]
    files.write_json(snakemake.output[0], mine)
    for candidate in mine:
        classifier.forget(Path(snakemake.output[0]).parent / candidate["candidate"])
