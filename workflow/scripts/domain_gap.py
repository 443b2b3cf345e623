from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

# Data loading workers may import this file again.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    take_gpus(snakemake.log[0], snakemake.resources.gpu)

    from augbench.core.progress import progress
    from augbench.models import clip
    from augbench.report import domain_gap
    from augbench.study import encoders

    inputs = {name: file for name, file in snakemake.input.items() if name != "clip"}
    encoder, model = encoders.find(snakemake.params.encoder)
    embedder = None if encoder.is_judge else encoder.embedder(model, lambda: clip.Clip(snakemake.params.clip))
    domain_gap.write(
        snakemake.output.gap,
        snakemake.output.metrics,
        snakemake.params.methods,
        snakemake.params.classifier,
        snakemake.params.encoder,
        snakemake.params.seed,
        **inputs,
        embed=embedder and (lambda table: clip.embed(table, embedder, progress())),
        progress=progress(),
    )
