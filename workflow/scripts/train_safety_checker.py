from augbench.jobs import log_to, progress, take_gpus

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench.diffusion_training import train_safety_checker

train_safety_checker(
    snakemake.input.shards,
    snakemake.input.clip,
    snakemake.output[0],
    seed=snakemake.params.seed,
    unsafe_words=snakemake.params.unsafe_words,
    threads=snakemake.params.threads,
    progress=progress(),
)
