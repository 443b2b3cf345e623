from augbench.core.progress import progress
from augbench.jobs.gpus import take_gpus
from augbench.jobs.logs import log_to

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], 0)  # it waits for the web most of its time; in the paper it has no GPU either

import contextlib
from pathlib import Path

import pandas as pd

from augbench import images
from augbench.digits import server
from augbench.models import aesthetics, clip
from augbench.models.backbones import SafetyChecker
from augbench.retrieval import download, index, retrieve
from augbench.study import classes

settings, pool, given = dict(snakemake.params.settings), snakemake.params.pool, snakemake.input
method, say = snakemake.params.method, progress(0)
# Downloads and answers are shared: another method finds many of the same images.
work = Path(snakemake.output.funnel).parents[2 if given.get("main") else 1]
target = images.read(given.images, extra=["split"])
counts = retrieve.counts(target, settings.pop("images_per_class"), snakemake.params.ratio)
table = pd.read_csv(given.classes, dtype=str, keep_default_na=False)
if given.get("kept"):  # what the main ratio could not fill takes no part
    table = table[table["class"].isin([about["class"] for about in classes.kept(given.kept)])]
prompts = retrieve.prompts(table, method["conditioning"])
service, with_images = pool["source"] == "service", method["query"] == "text_and_images"
plain = not with_images and all(len(texts) == 1 for texts in prompts)
model = None if service and plain and not given.head else clip.Clip(snakemake.params.clip_model)
queries = []
for key, texts in zip(table["class"], prompts, strict=True):
    mine = target[(target["split"] == "train") & (target["class"] == key)]
    vectors = clip.embed(mine, model.pictures, say) if with_images else None
    queries.append(retrieve.query(texts, vectors, model))
if service:
    source = index.Service(pool["url"], pool["index"], pause=pool["pause"], timeout=pool["timeout"])
else:
    places = pool["source"] in ("folder", "shards", "urls")
    source = index.LocalIndex(given.index[0], model, work / "neighbours", places=places)
settings.pop("aesthetic_model")
fetch = {key: settings.pop(key) for key in download.SETTINGS} | {"owner": snakemake.wildcards.method}
pictures = images.read(given.web) if given.web else None
with server.serve(pictures) if pictures is not None else contextlib.nullcontext() as proxy:
    retrieve.retrieve(
        pd.DataFrame({"class": table["class"], "query": queries, "count": table["class"].map(counts)}),
        source,
        SafetyChecker(given.safety),
        work,
        snakemake.output.ledger,
        snakemake.output.shard,
        snakemake.output.images,
        snakemake.output.funnel,
        fetch=fetch | ({"proxy": proxy} if proxy else {}),
        diversity=method["diversity"],
        score=aesthetics.of_pictures(given.head, model) if given.head else None,
        main=pd.read_parquet(given.main) if given.get("main") else None,
        progress=say,
        **settings,
    )
