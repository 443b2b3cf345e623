from augbench.dataset import export, splits


# The target: all labelled images and their splits, before retrieval says which classes stay.
rule split_target:
    input:
        lambda w: [rules.digits_target.output.folder] if study_of(w).target.reader.is_built_in else [],
        lambda w: files_of(w).target_section.classes or [],
    output:
        classes=ANY.target("classes.csv"),
        images=ANY.target("images.parquet"),
    log:
        "results/{study}/logs/dataset/split.log",
    benchmark:
        "results/{study}/benchmarks/dataset/split.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: costs_of(w).target_cores
    resources:
        **needs("split_target"),
    params:
        target=lambda w: files_of(w).target_section.model_dump(),
        dataset=setting("dataset"),
        seed=setting("seed"),
        data=data_in("target"),
    message:
        "{wildcards.study}: read the target and split it"
    script:
        "../scripts/split_target.py"


# The data set of the study: the splits of the classes that retrieval could fill.
rule dataset:
    input:
        classes=rules.split_target.output.classes,
        images=rules.split_target.output.images,
        ledgers=lambda w: files_of(w).ledgers,
    output:
        classes=ANY.classes,
        splits=[ANY.split(split) for split in splits.SPLITS],
    log:
        "results/{study}/logs/dataset/dataset.log",
    benchmark:
        "results/{study}/benchmarks/dataset/dataset.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("dataset"),
    params:
        images_per_class=setting("retrieval.images_per_class"),
        ratio=setting("main_ratio"),
        titles=lambda w: [METHODS[method].title for method in files_of(w).retrieving],
    message:
        "{wildcards.study}: keep the classes that every method can fill"
    script:
        "../scripts/dataset.py"


# Images made elsewhere: by any tool that filled a folder, or by a user's script, which is called with the training images.
rule run_script:
    input:
        script=lambda w: script_file(study_of(w).added[w.method].script),
        train=ANY.split("train"),
        classes=rules.dataset.output.classes,
    output:
        directory(ANY.added("{method}", "output")),
    log:
        "results/{study}/logs/added/{method}-script.log",
    benchmark:
        "results/{study}/benchmarks/added/{method}-script.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        **needs("run_script"),
    message:
        "{wildcards.study}: let {input.script} make the images of {wildcards.method}"
    script:
        "../scripts/run_script.py"


rule list_added:
    input:
        place=lambda w: (
            ancient(files_of(w).added_place(w.method))
            if study_of(w).added[w.method].path
            else files_of(w).added_place(w.method)
        ),
        classes=rules.dataset.output.classes,
        target=rules.split_target.output.images,
    output:
        ANY.added_images("{method}"),
    log:
        "results/{study}/logs/added/{method}-list.log",
    benchmark:
        "results/{study}/benchmarks/added/{method}-list.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        **needs("list_added"),
    params:
        ratio=lambda w: max(study_of(w).wanted_ratios(w.method)),
        allow_fewer=lambda w: files_of(w).allows_fewer(w.method),
        unreadable=setting("target.unreadable"),
        data=lambda w: DATA[w.study].added.get(w.method) if workflow.is_main_process else None,
    message:
        "{wildcards.study}: list the images of {wildcards.method}, which were made elsewhere"
    script:
        "../scripts/list_added.py"


# Resampling: sets with the target's count per class. A rule's outputs are fixed, so there is one rule for each number of
# sets that a study has.
for place, runs in enumerate(sorted({study.runs for study in STUDIES.values()})):

    rule:
        name:
            numbered("resample", place)
        input:
            classes=rules.dataset.output.classes,
            images=lambda w: files_of(w).image_tables(w.method, w.ratio),
            selection=lambda w: rules.select.output.selection if files_of(w).is_trained(w.method) else [],
            together=lambda w, runs=runs: together(w.study, 1, runs),
        output:
            [ANY.added_set("{method}", "{ratio}", k) for k in range(1, runs + 1)],
        log:
            "results/{study}/logs/resample/{method}-x{ratio}.log",
        benchmark:
            "results/{study}/benchmarks/resample/{method}-x{ratio}.tsv"
        wildcard_constraints:
            study=one_of(name for name, study in STUDIES.items() if study.runs == runs),
        localrule: is_light("resample")
        conda:
            "../../envs/augbench.yaml"
        resources:
            **needs("resample"),
        params:
            seed=setting("seed"),
            order=lambda w: METHODS[w.method].start.order,
            allow_fewer=lambda w: files_of(w).allows_fewer(w.method),
        message:
            "{wildcards.study}: draw sets of {wildcards.method}'s images at ratio {wildcards.ratio}"
        script:
            "../scripts/resample.py"


# Export: an augmented data set for other software, made only when it is asked for.
rule export:
    input:
        train=ANY.split("train"),
        classes=rules.dataset.output.classes,
        added=lambda w: files_of(w).first_added_set(w.method),
    output:
        directory(ANY.export("{method}", "{form}")),
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
        **needs("export"),
    params:
        card=lambda w: {
            "study": w.study,
            "method": w.method,
            "title": METHODS[w.method].title,
            "ratio": files_of(w).ratios(w.method)[0],
        },
    message:
        "{wildcards.study}: export the training images with {wildcards.method}'s as {wildcards.form}"
    script:
        "../scripts/export.py"
