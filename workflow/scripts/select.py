from augbench.jobs import log_to

log_to(snakemake.log[0])

from augbench import files, selection

screened = [candidate for path in snakemake.input for candidate in files.read_json(path)]
files.write_json(snakemake.output[0], selection.select(screened))
