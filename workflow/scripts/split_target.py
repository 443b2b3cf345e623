from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench import images
from augbench.core import files
from augbench.dataset import target
from augbench.study import config

given = config.Target(**snakemake.params.target)
table = target.split(given, config.Dataset(**snakemake.params.dataset), snakemake.params.seed)
files.write_csv(snakemake.output.classes, target.class_table(given))
images.write(snakemake.output.images, table, extra=["split"])
