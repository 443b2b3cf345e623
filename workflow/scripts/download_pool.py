from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from pathlib import Path

from augbench.retrieval import download, pools

settings, size, part = dict(snakemake.params.settings), snakemake.params.size, int(snakemake.wildcards.part)
pools.download_shard(
    pools.url_list(list(snakemake.input), part * size, (part + 1) * size),
    snakemake.output.shard,
    snakemake.output.ledger,
    Path(snakemake.output.shard).parent / "downloads" / str(part),
    fetch={key: settings[key] for key in download.SETTINGS},
    max_image_size=settings["max_image_size"],
    max_pixels=settings["max_pixels"],
)
