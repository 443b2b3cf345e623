from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from pathlib import Path

from augbench.retrieval import pools
from augbench.study.sections.retrieval import Retrieval

size, part = snakemake.params.size, int(snakemake.wildcards.part)
pools.download_shard(
    pools.url_list(list(snakemake.input), part * size, (part + 1) * size, snakemake.params.columns),
    snakemake.output.shard,
    snakemake.output.ledger,
    Path(snakemake.output.shard).parent / "downloads" / str(part),
    Retrieval(**snakemake.params.settings),
)
