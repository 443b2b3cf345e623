from augbench.jobs.logs import log_to

log_to(snakemake.log[0])

import pandas as pd

from augbench import images
from augbench.core import files
from augbench.dataset import target
from augbench.retrieval import retrieve

classes = pd.read_csv(snakemake.input.classes, dtype=str, keep_default_na=False)
table = images.read(snakemake.input.images, extra=["split"])
excluded = {}
if snakemake.input.ledgers:
    counts = retrieve.counts(table, snakemake.params.images_per_class, snakemake.params.ratio)
    tables = map(pd.read_parquet, snakemake.input.ledgers)
    excluded = retrieve.shortfall(dict(zip(snakemake.params.titles, tables, strict=True)), counts)
for key, reason in excluded.items():
    print(f"excluded for every method: {key}: {reason}")
kept = table[~table["class"].isin(excluded)]
if kept["class"].nunique() < 2:
    raise SystemExit("fewer than two classes are left, because retrieval could not fill the others: use a larger pool")
training = table[table["split"] == "train"].groupby("class").size()
classes["train"] = classes["class"].map(training).fillna(0).astype(int)
classes["excluded"] = classes["class"].map(excluded).fillna("")
files.write_csv(snakemake.output.classes, classes)
for split, path in zip(target.SPLITS, snakemake.output.splits, strict=True):
    images.write(path, kept[kept["split"] == split])
