from augbench.jobs import log_to, progress, take_gpus

log_to(snakemake.log[0])
take_gpus(snakemake.log[0], snakemake.resources.gpu)

from augbench import clip, clusters, files, images

embedder = clusters.embedder(snakemake.params.embedding, snakemake.params.clip_model)
tables = {name: images.read(snakemake.input[name]) for name in ("train", "validation")}
vectors = {name: clip.embed(table, embedder, progress()) for name, table in tables.items()}
found = clusters.cluster(**tables, vectors=vectors, counts=snakemake.params.counts, seed=snakemake.params.seed)
with files.whole(snakemake.output[0]) as temporary:
    found.to_parquet(temporary, index=False)
