# The diffusion model backbone: found or fetched, or trained on the pool where none can be had.
TRAINED_BACKBONE = [name for name, study in STUDIES.items() if study.backbone and study.backbone.train]


def one_of(studies):
    """A wildcard constraint for these studies alone; it matches nothing when there are none."""
    return "|".join(studies) or "(?!)"


rule fetch_backbone:
    output:
        directory("results/{study}/backbone"),
    wildcard_constraints:
        study=one_of(set(STUDIES) - set(TRAINED_BACKBONE)),
    params:
        model=setting("backbone.model"),
        code=code("backbone"),
    log:
        "results/{study}/logs/fetch_backbone.log",
    benchmark:
        "results/{study}/benchmarks/backbone/fetch.tsv"
    resources:
        mem_mb=2000,
        runtime=240,
    script:
        "../scripts/fetch_backbone.py"


rule train_vae:
    input:
        shards=lambda w: pool_shards(w.study),
    output:
        directory("results/{study}/vae"),
    params:
        seed=setting("seed"),
        train=setting("backbone.train"),
        code=code("diffusion_training"),
    log:
        "results/{study}/logs/train_vae.log",
    benchmark:
        "results/{study}/benchmarks/backbone/vae.tsv"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
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
    wildcard_constraints:
        study=one_of(TRAINED_BACKBONE),
    params:
        seed=setting("seed"),
        train=setting("backbone.train"),
        code=code("diffusion_training"),
    log:
        "results/{study}/logs/train_unet.log",
    benchmark:
        "results/{study}/benchmarks/backbone/unet.tsv"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    script:
        "../scripts/train_unet.py"


rule train_safety_checker:
    input:
        shards=lambda w: pool_shards(w.study),
        clip="results/{study}/clip",
    output:
        directory("results/{study}/safety"),
    params:
        unsafe_words=setting("backbone.train.unsafe_words"),
        threads=setting("backbone.train.threads"),
        code=code("diffusion_training"),
    log:
        "results/{study}/logs/train_safety_checker.log",
    benchmark:
        "results/{study}/benchmarks/backbone/safety.tsv"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
    script:
        "../scripts/train_safety_checker.py"


def safety_folder(study):
    """Where the backbone's safety checker is first to be had: retrieval need not wait for the denoiser."""
    return f"results/{study}/safety" if study in TRAINED_BACKBONE else f"results/{study}/backbone"
