# The diffusion model backbone: found or fetched, or trained on the pool where none can be had. Most of a study waits for
# it, so its trainings go before what could start with them.
TRAINED_BACKBONE = [name for name, files in FILES.items() if files.trains_backbone]


rule fetch_backbone:
    output:
        directory(ANY.model("backbone")),
    log:
        "results/{study}/logs/backbone/fetch.log",
    benchmark:
        "results/{study}/benchmarks/backbone/fetch.tsv"
    wildcard_constraints:
        study=one_of(set(STUDIES) - set(TRAINED_BACKBONE)),
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("fetch_backbone"),
    params:
        model=setting("backbone.model"),
        revision=setting("backbone.revision"),
        variant=setting("backbone.variant"),
        has_checker=setting("safety.is_backbones"),
        data=data_in("backbone"),
    message:
        "{wildcards.study}: fetch the diffusion model {params.model}"
    script:
        "../scripts/fetch_backbone.py"


use rule fetch_backbone as fetch_named_backbone with:
    output:
        directory(ANY.backbone_folder("{backbone}")),
    log:
        "results/{study}/logs/backbone/fetch-{backbone}.log",
    benchmark:
        "results/{study}/benchmarks/backbone/fetch-{backbone}.tsv"
    wildcard_constraints:
        study="|".join(STUDIES),
    resources:
        **needs("fetch_named_backbone"),
    params:
        model=lambda w: study_of(w).backbones[w.backbone].model,
        revision=lambda w: study_of(w).backbones[w.backbone].revision,
        variant=lambda w: study_of(w).backbones[w.backbone].variant,
        has_checker=False,
        data=lambda w: DATA[w.study].backbones[w.backbone] if workflow.is_main_process else None,
    message:
        "{wildcards.study}: fetch the diffusion model {params.model}"


rule fetch_safety_checker:
    output:
        directory(ANY.model("safety_checker")),
    log:
        "results/{study}/logs/backbone/safety_checker.log",
    benchmark:
        "results/{study}/benchmarks/backbone/safety_checker.tsv"
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("fetch_safety_checker"),
    params:
        model=setting("safety.named"),
        data=data_in("safety"),
    message:
        "{wildcards.study}: fetch the safety checker {params.model}"
    script:
        "../scripts/fetch_safety_checker.py"


rule train_vae:
    input:
        shards=lambda w: files_of(w).pool_shards,
    output:
        directory(ANY.model("vae")),
    log:
        "results/{study}/logs/backbone/vae.log",
    benchmark:
        "results/{study}/benchmarks/backbone/vae.tsv"
    priority: 1
    conda:
        "../../envs/augbench.yaml"
    threads: setting("backbone.train.threads")
    resources:
        **needs("train_vae"),
        gpu=1,
    params:
        seed=setting("seed"),
        train=setting("backbone.train"),
        data=data_in("pool"),
    message:
        "{wildcards.study}: train the diffusion model's autoencoder on the pool"
    script:
        "../scripts/train_vae.py"


rule train_unet:
    input:
        shards=lambda w: files_of(w).pool_shards,
        vae=rules.train_vae.output,
        clip=ANY.model("clip"),
        safety=ANY.model("safety"),
    output:
        directory(ANY.model("backbone")),
    log:
        "results/{study}/logs/backbone/unet.log",
    benchmark:
        "results/{study}/benchmarks/backbone/unet.tsv"
    wildcard_constraints:
        study=one_of(TRAINED_BACKBONE),
    priority: 1
    conda:
        "../../envs/augbench.yaml"
    threads: setting("backbone.train.threads")
    resources:
        **needs("train_unet"),
        gpu=1,
    params:
        seed=setting("seed"),
        train=setting("backbone.train"),
        data=data_in("pool"),
    message:
        "{wildcards.study}: train the diffusion model's denoiser on the pool"
    script:
        "../scripts/train_unet.py"


rule train_safety_checker:
    input:
        shards=lambda w: files_of(w).pool_shards,
        clip=ANY.model("clip"),
    output:
        directory(ANY.model("safety")),
    log:
        "results/{study}/logs/backbone/safety.log",
    benchmark:
        "results/{study}/benchmarks/backbone/safety.tsv"
    priority: 1
    conda:
        "../../envs/augbench.yaml"
    threads: setting("backbone.train.threads")
    resources:
        **needs("train_safety_checker"),
        gpu=1,
    params:
        seed=setting("seed"),
        unsafe_words=setting("backbone.train.unsafe_words"),
        threads=setting("backbone.train.threads"),
        data=data_in("pool"),
    message:
        "{wildcards.study}: train the safety checker on the pool"
    script:
        "../scripts/train_safety_checker.py"
