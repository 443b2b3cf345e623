from augbench.jobs import log_to

log_to(snakemake.log[0])

from pathlib import Path

from augbench import images
from augbench.audit import audit

added = images.read(*snakemake.input.added).drop_duplicates("image_id", ignore_index=True)
references = {name: images.read(snakemake.input[name]) for name in ("test", "validation", "unused")}
audit(added, references, Path(snakemake.output.summary).parent)
