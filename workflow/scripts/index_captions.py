from augbench.core.progress import progress
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.retrieval import captions
from augbench.study.sections.retrieval import Pool

captions.build(Pool(**snakemake.params.pool), snakemake.input[0], snakemake.output[0], progress())
