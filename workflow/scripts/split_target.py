from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from pathlib import Path

from augbench import images
from augbench.core import files
from augbench.dataset.class_table import class_table
from augbench.dataset.splits import split
from augbench.dataset.verification import Verifier
from augbench.study.sections.target import Dataset, Target

target = Target(**snakemake.params.target)
notes = Path(snakemake.output.images).parent / ".readable"
verifier = Verifier(snakemake.threads, notes, notes.parents[2].glob("*/target/.readable"))
table = split(target, Dataset(**snakemake.params.dataset), snakemake.params.seed, verifier)
files.write_csv(snakemake.output.classes, class_table(target))
images.write(snakemake.output.images, table, extra=["split"])
