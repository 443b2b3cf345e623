from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to
from augbench.retrieval.embedding import embed

# clip-retrieval starts a process that imports this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)
    size, part = snakemake.params.shards_per_job, int(snakemake.wildcards.part)
    embed(
        list(snakemake.input.shards)[part * size : (part + 1) * size],
        snakemake.params.clip_model,
        snakemake.output[0],
        batch_size=256,
        threads=1,
        places=snakemake.params.local,
        columns=snakemake.params.columns,
        progress=progress(),
    )
