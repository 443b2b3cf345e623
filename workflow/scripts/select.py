from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from pathlib import Path

from augbench.core import files
from augbench.diffusion import selection

screened = [candidate for path in snakemake.input.screened for candidate in files.read_json(path)]
folders = [Path(folder) for folder in snakemake.input.finetuned]
rates = selection.compare_rates(folders, snakemake.params.grid)
files.write_json(snakemake.output[0], selection.select(screened) | rates)
