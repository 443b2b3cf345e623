from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

import functools
from pathlib import Path

from augbench import images
from augbench.core import files, resume
from augbench.diffusion import clusters, conditioning, sampling, selection
from augbench.study import classes

settings, method, given = dict(snakemake.params.settings), snakemake.params.method, snakemake.input
fixed, batch_size = [settings.pop(key) for key in ("times", "images_per_class", "batch_size")][1:]
kept = classes.kept(given.classes)
sizes = clusters.read_sizes(given.clusters, method["clusters"]) if given.get("clusters") else None
starts = classes.positions(images.read(given.train)) if given.get("train") else None
first = [classes.added(about["train"], snakemake.params.ratio) for about in kept]  # made when candidates are compared
main, every = (
    [classes.generated(about["train"], times, fixed) for about in kept]
    for times in (snakemake.params.times, max(snakemake.params.times, snakemake.params.further or 0))
)
chosen = files.read_json(given.selection) if given.get("selection") else {"candidate": "base"}


@functools.cache
def sampler():
    return sampling.Sampler(given.backbone, start_latents=given.get("latents"), starts=starts, **settings)


def work(candidate, counts, done=None):
    """This job's share of a candidate's images, without those that are done."""
    key = (snakemake.params.seed, snakemake.wildcards.method)
    rows = sampling.plan(kept, counts, method, key, cluster_sizes=sizes)
    if done:
        already = {about["class"]: count for about, count in zip(kept, done, strict=True)}
        rows = [row for row in rows if row["index"] >= already[row["class"]]]
    trained = Path(given.finetuned[0]).parent / candidate["file"] if "file" in candidate else None
    data = [path for path in (given.backbone, given.get("latents"), trained) if path]
    return sampling.Work(
        lambda: sampler().use(conditioning.load(trained) if trained else {}),
        sampling.batches(rows, batch_size, int(snakemake.wildcards.shard), snakemake.params.parts),
        key,
        candidate["candidate"],
        resume.identity(sampling.__name__, settings, data),
    )


shares = {
    "base": lambda: [work(chosen, main)],
    "screen": lambda: [work(each, first) for each in selection.candidates([Path(path) for path in given.finetuned])],
    "selected": lambda: [work(chosen, main, first)],
    "further": lambda: [work(chosen, every, main)],
}[snakemake.wildcards.purpose]()
sampling.generate(shares, snakemake.output.shard, snakemake.output.images, progress())
sampling.forget(snakemake.output.shard)
