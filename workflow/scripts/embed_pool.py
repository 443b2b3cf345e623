from augbench.jobs import log_to

log_to(snakemake.log[0] if snakemake.log else None)

from augbench.images import image_key
from augbench.pool import embed

# Data loaders of clip-retrieval start processes that import this file again.
if __name__ == "__main__":
    shards = list(snakemake.input.shards)
    embed(
        shards,
        snakemake.params.clip_model,
        snakemake.output[0],
        image_key=image_key(shards[0]),
        batch_size=256,
        threads=1,
    )
