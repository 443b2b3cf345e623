from augbench.jobs import log_to, take_gpus

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from pathlib import Path

from augbench import classes, classifier, domain_gap, files, images

settings, given = snakemake.params.classifier, snakemake.input
names = [about["class"] for about in classes.kept(given.classes)]
weights = Path(given.weights)


def look(table):
    features, seen = classifier.look(
        weights.parent, names, table, **{key: settings[key] for key in ("model", "image_size", "threads")}
    )
    return features, seen["correct"].to_numpy()


sets = {}
for path in given.added:
    sets.setdefault(Path(path).parts[-3], []).append(images.read(path))
recognised = files.read_json(given.metrics)["accuracy"]
files.write_csv(snakemake.output[0], domain_gap.measure(sets, images.read(given.test), look, recognised))
