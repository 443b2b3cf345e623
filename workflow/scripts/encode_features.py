from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)

    from augbench.classifier import features
    from augbench.core.progress import progress
    from augbench.study.sections.classifier import Classifier

    settings = Classifier(**snakemake.params.settings)
    features.write(snakemake.output[0], snakemake.input.tables, settings, progress())
