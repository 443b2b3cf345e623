from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from pathlib import Path

from augbench import images
from augbench.classifier import scoring
from augbench.core import files
from augbench.report import domain_gap
from augbench.study import classes
from augbench.study.sections.classifier import Classifier

settings, given = Classifier(**snakemake.params.classifier), snakemake.input
names = [about["class"] for about in classes.kept(given.classes)]
weights = Path(given.weights)


def look(table):
    features, seen = scoring.score(weights.parent, names, table, settings)
    return features, seen["correct"].to_numpy()


sets = {}
for path in given.added:
    sets.setdefault(Path(path).parts[-3], []).append(images.read(path))
recognised = files.read_json(given.metrics)["accuracy"]
files.write_csv(snakemake.output[0], domain_gap.measure(sets, images.read(given.test), look, recognised))
