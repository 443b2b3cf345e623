from augbench.jobs import log_to, progress, take_gpus

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.resources.gpu)

    import functools
    from pathlib import Path

    import pandas as pd

    from augbench import classes, clusters, conditioning, distributed, files, images, resume, sampling, selection
    from augbench.classifier import forget
    from augbench.seeds import derive

    settings, method, given = dict(snakemake.params.settings), snakemake.params.method, snakemake.input
    batch_size = [settings.pop(key) for key in ("times", "images_per_class", "batch_size")][-1]
    classifier = {key: value for key, value in snakemake.params.classifier.items() if key != "processes"}
    kept = classes.kept(given.classes)
    counts = [classes.added(about["train"], snakemake.params.ratio) for about in kept]
    sizes = clusters.read_sizes(given.clusters, method["clusters"]) if given.get("clusters") else None
    folder = selection.best_rate([Path(folder) for folder in given.finetuned])
    distinct = selection.distinct(pd.read_csv(folder / "candidates.csv"), folder.name)
    mine = distinct[int(snakemake.wildcards.part) :: snakemake.params.parts]

    @functools.cache
    def sampler():
        return sampling.Sampler(given.backbone, **settings)

    def work(candidate):
        key = (snakemake.params.seed, snakemake.wildcards.method, candidate["candidate"])
        rows = sampling.plan(kept, counts, method, key, cluster_sizes=sizes)
        file = folder.parent / candidate["file"]
        return sampling.Work(
            lambda: sampler().use(conditioning.load(file)),
            sampling.batches(rows, batch_size),
            key,
            resume.identity("sampling", settings, [given.backbone, file]),
        )

    sampling.generate(
        [work(candidate) for candidate in mine], snakemake.output.shard, snakemake.output.images, progress()
    )

    sampler.cache_clear()  # the GPU is for the classifiers now
    made = images.read(snakemake.output.images)
    train, validation = images.read(given.train), images.read(given.validation)
    for candidate in mine:
        print(f"classifier for {candidate['candidate']}", flush=True)
        added = made[made["candidate"] == candidate["candidate"]]
        result = Path(snakemake.output.screened).parent / candidate["candidate"]
        job = {
            "train": pd.concat([train, added], ignore_index=True),
            "validation": validation,
            "test": validation,  # the test images take no part in a selection
            "classes": [about["class"] for about in kept],
            "folder": str(result),
            "seed": derive(snakemake.params.seed, "classifier", 1),
            "save_minutes": snakemake.params.save_minutes,
        }
        distributed.run("classifier:train", job | classifier, result / ".processes", processes=snakemake.resources.gpu)
        candidate["validation_accuracy"] = files.read_json(result / "metrics.json")["best_validation_accuracy"]
        forget(result)
    files.write_json(snakemake.output.screened, mine)
    sampling.forget(snakemake.output.shard)
