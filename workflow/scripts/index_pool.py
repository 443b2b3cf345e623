from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.retrieval.embedding import build_index

build_index(
    list(snakemake.input),
    snakemake.output[0],
    exact=snakemake.params.exact,
    memory=snakemake.params.memory,
    threads=snakemake.threads,
)
