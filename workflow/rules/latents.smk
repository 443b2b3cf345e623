# VAE posteriors of the target, encoded once for every fine-tuning.


rule encode_latents:
    input:
        backbone="results/{study}/backbone",
        train="results/{study}/dataset/train.parquet",
        validation="results/{study}/dataset/validation.parquet",
    output:
        train="results/{study}/latents/train.safetensors",
        validation="results/{study}/latents/validation.safetensors",
    log:
        "results/{study}/logs/latents/encode.log",
    benchmark:
        "results/{study}/benchmarks/latents/encode.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: study_of(w).generate.threads
    resources:
        mem_mb=lambda w, input, attempt: costs.megabytes(
            4000,
            attempt,
            bytes=costs.latents(
                rows(input.train, input.validation), study_of(w).generate.image_size
            ),
        ),
        runtime=lambda w, input, attempt: costs.minutes(
            10 * costs.hashing(rows(input.train, input.validation)), attempt
        ),
        gpu=1,
    params:
        image_size=setting("generate.image_size"),
        mirrored=setting("finetune.horizontal_flip"),
        threads=setting("generate.threads"),
        code=code("latents"),
    script:
        "../scripts/encode_latents.py"
