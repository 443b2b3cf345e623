from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from pathlib import Path

from augbench import images
from augbench.audit import embeddings
from augbench.audit import hashes as image_hashes
from augbench.audit.duplicates import Set, audit


def seen(tables, hashes, vectors):
    table = images.read(*tables).drop_duplicates("image_id", ignore_index=True)
    detected = len(table) > 0 and len(vectors) > 0
    return Set(table, image_hashes.read(hashes, table), embeddings.read(vectors[0], table) if detected else None)


names = snakemake.params.references
given = snakemake.input
vectors = [[file] for file in given.vectors] or [[]] * len(names)
references = {
    name: seen([table], hashes, found)
    for name, table, hashes, found in zip(names, given.references, given.hashes, vectors, strict=True)
}
ratios = {}
for path in given.added:
    ratio = float(Path(path).parent.name.removeprefix("x"))
    ratios.setdefault(ratio, set()).update(images.read(path)["image_id"])
audit(
    seen(given.added, given.added_hashes, given.added_vectors),
    references,
    Path(snakemake.output.summary).parent,
    threshold=snakemake.params.threshold,
    threads=snakemake.threads,
    ratios=ratios,
)
