# The target: all labelled images and their splits, before retrieval says which classes stay.


rule split_target:
    input:
        lambda w: (
            [rules.digits_target.output.folder]
            if study_of(w).target.reader.is_built_in
            else []
        ),
        lambda w: target_of(w.study).classes or [],
    output:
        classes="results/{study}/target/classes.csv",
        images="results/{study}/target/images.parquet",
    log:
        "results/{study}/logs/dataset/split.log",
    benchmark:
        "results/{study}/benchmarks/dataset/split.tsv"
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=60),
    params:
        target=lambda w: target_of(w.study).model_dump(),
        dataset=setting("dataset"),
        seed=setting("seed"),
    script:
        "../scripts/split_target.py"


# The data set of the study: the splits of the classes that retrieval could fill.


rule dataset:
    input:
        classes=rules.split_target.output.classes,
        images=rules.split_target.output.images,
        ledgers=lambda w: ledgers(w.study),
    output:
        classes="results/{study}/dataset/classes.csv",
        splits=expand("results/{{study}}/dataset/{split}.parquet", split=splits.SPLITS),
    log:
        "results/{study}/logs/dataset/dataset.log",
    benchmark:
        "results/{study}/benchmarks/dataset/dataset.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=30),
    params:
        images_per_class=setting("retrieval.images_per_class"),
        ratio=lambda w: study_of(w).main_ratio,
        titles=lambda w: [METHODS[method].title for method in retrieving(w.study)],
    script:
        "../scripts/dataset.py"


# Resampling: five sets with the target's count per class. A rule's outputs are fixed, so there is one rule for each
# number of sets that a study has.


for place, runs in enumerate(sorted({study.runs for study in STUDIES.values()})):

    rule:
        name:
            f"resample_{place + 1}" if place else "resample"
        input:
            classes=rules.dataset.output.classes,
            images=lambda w: image_tables(w.study, w.method, w.ratio),
            selection=lambda w: rules.select.output[0] if trained(w.method) else [],
            together=lambda w, runs=runs: together(w.study, 1, runs),
        output:
            expand(
                "results/{study}/augmentation/{method}/x{ratio}/split-{k}.parquet",
                k=range(1, runs + 1),
                allow_missing=True,
            ),
        log:
            "results/{study}/logs/resample/{method}-x{ratio}.log",
        benchmark:
            "results/{study}/benchmarks/resample/{method}-x{ratio}.tsv"
        wildcard_constraints:
            study=one_of(name for name, study in STUDIES.items() if study.runs == runs),
        localrule: True
        conda:
            "../../envs/augbench.yaml"
        resources:
            mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
            runtime=lambda w, attempt: costs.minutes(0, attempt, least=30),
        params:
            seed=setting("seed"),
            order=lambda w: METHODS[w.method].start.order,
        script:
            "../scripts/resample.py"


# Export: an augmented data set for other software, made only when it is asked for.


rule export:
    input:
        train="results/{study}/dataset/train.parquet",
        classes=rules.dataset.output.classes,
        added=lambda w: (
            []
            if not METHODS[w.method].start.adds_images
            else [
                f"results/{w.study}/augmentation/{w.method}/x{ratios(w.study, w.method)[0]}/split-1.parquet"
            ]
        ),
    output:
        directory("results/{study}/export/{method}/{form}"),
    log:
        "results/{study}/logs/export/{method}-{form}.log",
    benchmark:
        "results/{study}/benchmarks/export/{method}-{form}.tsv"
    wildcard_constraints:
        form="|".join(export.FORMATS),
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(2000, attempt),
        runtime=lambda w, input, attempt: costs.minutes(
            costs.hashing(rows(input.train, *input.added)), attempt
        ),
    params:
        about=lambda w: {
            "study": w.study,
            "method": w.method,
            "title": METHODS[w.method].title,
            "ratio": ratios(w.study, w.method)[0],
        },
    script:
        "../scripts/export.py"
