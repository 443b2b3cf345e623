# Fine-tuned methods take the most steps after another, so they go before classifiers, which fill the gaps.


# VAE posteriors of the target, encoded once for every fine-tuning.
rule encode_latents:
    input:
        backbone=lambda w: files_of(w).model("backbone"),
        train=ANY.split("train"),
        validation=ANY.split("validation"),
    output:
        train=ANY.latents("train"),
        validation=ANY.latents("validation"),
    log:
        "results/{study}/logs/latents/encode.log",
    benchmark:
        "results/{study}/benchmarks/latents/encode.tsv"
    priority: 1
    conda:
        "../../envs/augbench.yaml"
    threads: setting("generate.threads")
    resources:
        **needs("encode_latents"),
        gpu=1,
    params:
        image_size=setting("generate.image_size"),
        mirrored=setting("finetune.horizontal_flip"),
        validation_images=setting("finetune.validation_images"),
        threads=setting("generate.threads"),
    message:
        "{wildcards.study}: encode the target's images as latents"
    script:
        "../scripts/encode_latents.py"


use rule encode_latents as encode_named_latents with:
    input:
        backbone=lambda w: files_of(w).backbone_folder(w.backbone),
        train=ANY.split("train"),
        validation=ANY.split("validation"),
    output:
        train=ANY.latents("train", "{backbone}"),
        validation=ANY.latents("validation", "{backbone}"),
    log:
        "results/{study}/logs/latents/encode-{backbone}.log",
    benchmark:
        "results/{study}/benchmarks/latents/encode-{backbone}.tsv"
    resources:
        **needs("encode_named_latents"),
        gpu=1,
    message:
        "{wildcards.study}: encode the target's images as latents of {wildcards.backbone}"


# Fine-tuning: what a method trains on the target, once per learning rate.
rule cluster:
    input:
        train=ANY.split("train"),
        validation=ANY.split("validation"),
        clip=lambda w: files_of(w).clip if study_of(w).finetune.embedding == "clip" else [],
    output:
        ANY.clusters,
    log:
        "results/{study}/logs/finetune/clusters.log",
    benchmark:
        "results/{study}/benchmarks/finetune/clusters.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        **needs("cluster"),
        gpu=1,
    params:
        seed=setting("seed"),
        embedding=setting("finetune.embedding"),
        clip_model=lambda w: files_of(w).clip_name,
        counts=lambda w: files_of(w).cluster_counts,
        data=data_in("clip"),
    message:
        "{wildcards.study}: cluster the images of each class"
    script:
        "../scripts/cluster.py"


# The state that a killed job goes on from lies beside the output, in a folder that is not declared. Whether an output is
# temporary is fixed, so there is one rule for studies that keep their candidates and one for those that do not.
for place, keep in enumerate(sorted({study.jobs.keep_candidates for study in STUDIES.values()}, reverse=True)):
    kept = directory(ANY.finetuning("{method}", "{rate}"))

    rule:
        name:
            numbered("finetune", place)
        input:
            backbone=lambda w: files_of(w).backbone_of(w.method),
            classes=rules.dataset.output.classes,
            train=ANY.split("train"),
            validation=ANY.split("validation"),
            train_latents=lambda w: files_of(w).latents_of(w.method, "train"),
            validation_latents=lambda w: files_of(w).latents_of(w.method, "validation"),
            clusters=lambda w: files_of(w).clusters_of(w.method),
        output:
            candidates=kept if keep else temp(kept),
            losses=ANY.finetuning("{method}", "{rate}", ".csv"),
        log:
            "results/{study}/logs/finetune/{method}-lr-{rate}.log",
        benchmark:
            "results/{study}/benchmarks/finetune/{method}-lr-{rate}.tsv"
        wildcard_constraints:
            study=one_of(name for name, study in STUDIES.items() if study.jobs.keep_candidates == keep),
        priority: 1
        conda:
            "../../envs/augbench.yaml"
        threads: lambda w: costs_of(w).finetuning_cores
        resources:
            **needs("finetune"),
            gpu=setting("finetune.processes"),
        params:
            seed=setting("seed"),
            settings=setting("finetune"),
            method=method_row,
            save_minutes=setting("jobs.save_minutes"),
        message:
            "{wildcards.study}: fine-tune for {wildcards.method} at {wildcards.rate} times the learning rate"
        script:
            "../scripts/finetune.py"


# Selection: a classifier on each candidate's first images; the best validation accuracy chooses. Those images are made by
# the rule generate.
rule screen:
    input:
        classes=rules.dataset.output.classes,
        train=ANY.split("train"),
        validation=ANY.split("validation"),
        finetuned=lambda w: files_of(w).finetunings(w.method),
        losses=lambda w: files_of(w).finetunings(w.method, ".csv"),
        shards=lambda w: files_of(w).shards(w.method, "screen", "tar"),
        images=lambda w: files_of(w).shards(w.method, "screen", "parquet"),
    output:
        ANY.screening("{method}", "{part}"),
    log:
        "results/{study}/logs/screen/{method}-{part}.log",
    benchmark:
        "results/{study}/benchmarks/screen/{method}-{part}.tsv"
    priority: 1
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: costs_of(w).classifier_cores
    resources:
        **needs("screen"),
        gpu=setting("classifier.processes"),
    params:
        seed=setting("seed"),
        settings=setting("classifier"),
        recipe=recipe,
        parts=lambda w: files_of(w).screening_jobs(w.method),
        save_minutes=setting("jobs.save_minutes"),
        data=data_in("classifier"),
    message:
        "{wildcards.study}: compare candidates of {wildcards.method}, part {wildcards.part}"
    script:
        "../scripts/screen.py"


rule select:
    input:
        screened=lambda w: files_of(w).screenings(w.method),
        finetuned=lambda w: files_of(w).finetunings(w.method),
        losses=lambda w: files_of(w).finetunings(w.method, ".csv"),
    output:
        selection=ANY.selection("{method}"),
        chosen=ANY.chosen("{method}"),
    log:
        "results/{study}/logs/screen/select-{method}.log",
    benchmark:
        "results/{study}/benchmarks/screen/select-{method}.tsv"
    priority: 1
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("select"),
    params:
        grid=setting("finetune.grid"),
    message:
        "{wildcards.study}: choose the best candidate of {wildcards.method}"
    script:
        "../scripts/select.py"


# Generation: one job takes a stretch of a method's images and writes one shard. What they are for is the purpose, see
# StudyFiles.shard. Images by which candidates are compared are most of a study's: what is chosen goes into the shard of
# the same number, and they go (`snakemake --notemp` keeps them).
rule generate:
    input:
        backbone=lambda w: files_of(w).backbone_of(w.method),
        safety=lambda w: files_of(w).safety,
        classes=rules.dataset.output.classes,
        train=lambda w: ANY.split("train") if METHODS[w.method].start.begins_from_images else [],
        latents=lambda w: (
            files_of(w).latents_of(w.method, "train") if METHODS[w.method].start.begins_from_images else []
        ),
        finetuned=lambda w: files_of(w).finetunings(w.method) if w.purpose == "screen" else [],
        selection=lambda w: chosen_for(w, ANY.selection("{method}")),
        chosen=lambda w: chosen_for(w, ANY.chosen("{method}")),
        clusters=lambda w: files_of(w).clusters_of(w.method),
        screened=lambda w: files_of(w).screened(w.method, w.shard) if w.purpose == "selected" else [],
    output:
        shard=ANY.shard("{method}", "{purpose}", "{shard}", "tar"),
        images=ANY.shard("{method}", "{purpose}", "{shard}", "parquet"),
    log:
        "results/{study}/logs/generate/{method}-{purpose}-{shard}.log",
    benchmark:
        "results/{study}/benchmarks/generate/{method}-{purpose}-{shard}.tsv"
    wildcard_constraints:
        purpose="base|selected|further",
    priority: 1
    conda:
        "../../envs/augbench.yaml"
    threads: setting("generate.threads")
    resources:
        **needs("generate"),
        gpu=1,
    params:
        seed=setting("seed"),
        settings=lambda w: files_of(w).generation(w.method).model_dump(),
        method=method_row,
        times=lambda w: files_of(w).main_times(w.method),
        ratio=setting("main_ratio"),
        further=lambda w: files_of(w).further_ratio(w.method) if w.purpose == "further" else None,
        parts=lambda w: files_of(w).generation_jobs,
        loading=lambda w: files_of(w).loading_of(w.method),
    message:
        "{wildcards.study}: generate images of {wildcards.method} ({wildcards.purpose}), shard {wildcards.shard}"
    script:
        "../scripts/generate.py"


use rule generate as generate_screened with:
    output:
        shard=temp(ANY.shard("{method}", "{purpose}", "{shard}", "tar")),
        images=temp(ANY.shard("{method}", "{purpose}", "{shard}", "parquet")),
    wildcard_constraints:
        purpose="screen",
    resources:
        **needs("generate_screened"),
        gpu=1,
    message:
        "{wildcards.study}: generate images to compare candidates of {wildcards.method}, shard {wildcards.shard}"
