from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)

    from augbench.core.progress import progress
    from augbench.report import scores
    from augbench.study.sections.classifier import Classifier

    scores.write_method(
        snakemake.output[0],
        scores.Inputs(**dict(snakemake.input.items())),
        Classifier(**snakemake.params.classifier),
        clip_name=snakemake.params.clip,
        embedder=snakemake.params.embedder,
        image_size=snakemake.params.image_size,
        threads=snakemake.threads,
        progress=progress(),
    )
