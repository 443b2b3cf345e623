# The diffusion model backbone: found or fetched, or trained on the pool where none can be had. Most of a study waits for
# it, so its trainings go before what could start with them.


rule fetch_backbone:
    output:
        directory("results/{study}/backbone"),
    log:
        "results/{study}/logs/backbone/fetch.log",
    benchmark:
        "results/{study}/benchmarks/backbone/fetch.tsv"
    wildcard_constraints:
        study=one_of(set(STUDIES) - set(TRAINED_BACKBONE)),
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=240),
    params:
        model=setting("backbone.model"),
    script:
        "../scripts/fetch_backbone.py"


rule train_vae:
    input:
        shards=lambda w: pool_shards(w.study),
    output:
        directory("results/{study}/vae"),
    log:
        "results/{study}/logs/backbone/vae.log",
    benchmark:
        "results/{study}/benchmarks/backbone/vae.tsv"
    priority: 1
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: study_of(w).backbone.train.threads
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(3000, attempt),
        runtime=lambda w, attempt: costs.minutes(
            costs.training(*training_of(w, "backbone", "vae_")), attempt
        ),
        gpu=1,
    params:
        seed=setting("seed"),
        train=setting("backbone.train"),
    script:
        "../scripts/train_vae.py"


rule train_unet:
    input:
        shards=lambda w: pool_shards(w.study),
        vae=rules.train_vae.output,
        clip="results/{study}/clip",
        safety="results/{study}/safety",
    output:
        directory("results/{study}/backbone"),
    log:
        "results/{study}/logs/backbone/unet.log",
    benchmark:
        "results/{study}/benchmarks/backbone/unet.tsv"
    wildcard_constraints:
        study=one_of(TRAINED_BACKBONE),
    priority: 1
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: study_of(w).backbone.train.threads
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(3000, attempt),
        runtime=lambda w, attempt: costs.minutes(
            costs.training(*training_of(w, "backbone", "unet_")), attempt
        ),
        gpu=1,
    params:
        seed=setting("seed"),
        train=setting("backbone.train"),
    script:
        "../scripts/train_unet.py"


rule train_safety_checker:
    input:
        shards=lambda w: pool_shards(w.study),
        clip="results/{study}/clip",
    output:
        directory("results/{study}/safety"),
    log:
        "results/{study}/logs/backbone/safety.log",
    benchmark:
        "results/{study}/benchmarks/backbone/safety.tsv"
    priority: 1
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: study_of(w).backbone.train.threads
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(3000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=60),
        gpu=1,
    params:
        seed=setting("seed"),
        unsafe_words=setting("backbone.train.unsafe_words"),
        threads=setting("backbone.train.threads"),
    script:
        "../scripts/train_safety_checker.py"
