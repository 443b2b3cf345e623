from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from pathlib import Path

from augbench.audit.job import audit_method, read_set

files = snakemake.input
names = snakemake.params.references
vectors = files.vectors or [None] * len(names)
ratios = snakemake.params.ratios
runs = len(files.added) // len(ratios)
audit_method(
    {float(ratio): files.added[place * runs : (place + 1) * runs] for place, ratio in enumerate(ratios)},
    files.added_hashes,
    {
        name: read_set([table], hashes, embedded)
        for name, table, hashes, embedded in zip(names, files.references, files.hashes, vectors, strict=True)
    },
    Path(snakemake.output.summary).parent,
    vectors=files.added_vectors[0] if files.added_vectors else None,
    threshold=snakemake.params.threshold,
    threads=snakemake.threads,
)
