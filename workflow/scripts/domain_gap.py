from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)

    from augbench.core.progress import progress
    from augbench.report import domain_gap

    domain_gap.write(
        snakemake.output[0],
        snakemake.params.methods,
        snakemake.params.classifier,
        **dict(snakemake.input.items()),
        progress=progress(),
    )
