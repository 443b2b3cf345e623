# Generation: one job takes a stretch of a method's images and writes one shard. Of a fine-tuned method first the images
# by which its candidates are compared (screen), then the rest of those of the chosen one (selected). What further ratios
# want beyond the main one's images comes on top (further).


rule generate:
    input:
        backbone="results/{study}/backbone",
        classes=rules.dataset.output.classes,
        train=lambda w: (
            "results/{study}/dataset/train.parquet"
            if METHODS[w.method].start == "image"
            else []
        ),
        latents=lambda w: (
            rules.encode_latents.output.train
            if METHODS[w.method].start == "image"
            else []
        ),
        selection=lambda w: (
            rules.select.output[0]
            if trained(w.method) and w.candidate in ("selected", "further")
            else []
        ),
        finetuned=finetuned,
        clusters=clusters_of,
    output:
        shard="results/{study}/images/{method}/{candidate}/shard-{shard}.tar",
        images="results/{study}/images/{method}/{candidate}/shard-{shard}.parquet",
    log:
        "results/{study}/logs/generate/{method}-{candidate}-{shard}.log",
    benchmark:
        "results/{study}/benchmarks/generate/{method}-{candidate}-{shard}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: study_of(w).generate.threads
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(6000, attempt),
        runtime=lambda w, input, attempt: costs.minutes(
            sampling_seconds(
                w.study,
                images_to_generate(w, input.classes) / generation_jobs(w.study),
            ),
            attempt,
        ),
        gpu=1,
    params:
        seed=setting("seed"),
        settings=setting("generate"),
        method=row_of,
        times=lambda w: study_of(w).main_times,
        ratio=lambda w: study_of(w).main_ratio,
        further=lambda w: (
            further_ratio(w.study, w.method) if w.candidate == "further" else None
        ),
        parts=lambda w: generation_jobs(w.study),
        code=code("sampling", "selection"),
    script:
        "../scripts/generate.py"
