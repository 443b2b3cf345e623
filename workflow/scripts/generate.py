from augbench.jobs import log_to, progress, take_gpus

log_to(snakemake.log[0])
take_gpus(snakemake.resources.gpu)

from pathlib import Path

from augbench import classes, clusters, conditioning, files, images, resume, sampling

settings, method, given = dict(snakemake.params.settings), snakemake.params.method, snakemake.input
fixed, batch_size = [settings.pop(key) for key in ("times", "images_per_class", "batch_size")][1:]
kept = classes.kept(given.classes)
chosen = files.read_json(given.selection) if given.get("selection") else None
key = (snakemake.params.seed, snakemake.wildcards.method, chosen["candidate"] if chosen else "base")
rows = sampling.plan(
    kept,
    [classes.generated(about["train"], snakemake.params.times, fixed) for about in kept],
    method,
    key,
    cluster_sizes=clusters.read_sizes(given.clusters, method["clusters"]) if given.get("clusters") else None,
    starts=classes.positions(images.read(given.train)) if given.get("train") else None,
)
if chosen:  # its first images were made when it was compared with others
    already = {about["class"]: classes.added(about["train"], snakemake.params.ratio) for about in kept}
    rows = [row for row in rows if row["index"] >= already[row["class"]]]
candidate = Path(given.finetuned[0]).parent / chosen["file"] if chosen else None
data = [path for path in (given.backbone, given.get("latents"), candidate) if path]
work = sampling.Work(
    lambda: sampling.Sampler(given.backbone, start_latents=given.get("latents"), **settings).use(
        conditioning.load(candidate) if candidate else {}
    ),
    sampling.batches(rows, batch_size, int(snakemake.wildcards.shard), snakemake.params.parts),
    key,
    resume.identity("sampling", settings, data),
)
sampling.generate([work], snakemake.output.shard, snakemake.output.images, progress())
sampling.forget(snakemake.output.shard)
