from augbench.images import image_key
from augbench.jobs import log_to
from augbench.pool import embed

# clip-retrieval starts a process that imports this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    shards = list(snakemake.input.shards)
    embed(
        shards,
        snakemake.params.clip_model,
        snakemake.output[0],
        image_key=image_key(shards[0]),
        batch_size=256,
        threads=1,
    )
