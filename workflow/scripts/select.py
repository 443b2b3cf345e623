from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

from augbench.diffusion import selection

selection.write(
    snakemake.output.selection,
    snakemake.output.chosen,
    snakemake.input.screened,
    snakemake.input.finetuned,
    grid=snakemake.params.grid,
)
