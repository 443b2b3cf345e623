from augbench.jobs import log_to, progress

log_to(snakemake.log[0])

from augbench import classes, clusters, finetuning, images

settings, method, given = dict(snakemake.params.settings), snakemake.params.method, snakemake.input
for key in ("grid", "embedding"):
    settings.pop(key)
processes = settings.pop("processes")
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
if processes == 1:
    finetuning.finetune(**tables, **job, progress=progress())
else:
    job |= {name: {"paths": [given[name]]} for name in tables}
    finetuning.launch(job, f"{snakemake.output[0]}.json", processes)
