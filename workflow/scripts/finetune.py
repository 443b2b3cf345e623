from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from pathlib import Path

from augbench import images
from augbench.diffusion import clusters, finetuning
from augbench.jobs import launching
from augbench.study import classes

settings, method, given = dict(snakemake.params.settings), snakemake.params.method, snakemake.input
for key in ("grid", "embedding", "processes"):
    settings.pop(key)
tables = {name: images.read(given[name]) for name in ("train", "validation")}
job = {
    "pipeline_folder": given.backbone,
    "train_latents": given.train_latents,
    "validation_latents": given.validation_latents,
    "classes": classes.kept(given.classes),
    "method": method,
    "folder": snakemake.output[0],
    "clusters": clusters.read_members(given.clusters, method["clusters"], tables) if given.get("clusters") else None,
    "seed": snakemake.params.seed,
    "rate": float(snakemake.wildcards.rate),
    "save_minutes": snakemake.params.save_minutes,
    **settings,
}
launching.run(
    finetuning.finetune,
    job | tables,
    Path(snakemake.output[0]).with_name(f".lr-{snakemake.wildcards.rate}.processes"),
    threads=settings["threads"],
    processes=snakemake.resources.gpu,  # as many as there are, whatever was asked for
    machines=snakemake.resources.get("nodes", 1),
)
