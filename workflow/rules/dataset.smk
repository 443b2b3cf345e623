from augbench.dataset import export, splits
from augbench.study.readers.layout import HELD_OUT


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
        fill_to=setting("dataset.fill_to"),
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
        ratio=lambda w: max(files_of(w).wanted_ratios(w.method)),
        allow_fewer=lambda w: study_of(w).added[w.method].allow_fewer,
        unreadable=setting("target.unreadable"),
        data=lambda w: DATA[w.study].added(w.method) if workflow.is_main_process else None,
    message:
        "{wildcards.study}: list the images of {wildcards.method}, which were made elsewhere"
    script:
        "../scripts/list_added.py"


# Scores of all images that a method may add, computed once, and filters by them; only for studies that ask for it.
rule score:
    input:
        tables=lambda w: files_of(w).candidate_tables(w.method, w.extent),
        selection=lambda w: files_of(w).selection_of(w.method),
        classes=rules.dataset.output.classes,
        train=ANY.split("train"),
        held_out=[ANY.split(split) for split in HELD_OUT],
        train_hashes=ANY.detected_references("hashes", "train"),
        held_out_hashes=[ANY.detected_references("hashes", split) for split in HELD_OUT],
        train_vectors=lambda w: files_of(w).embedded(["train"]),
        held_out_vectors=lambda w: files_of(w).embedded(HELD_OUT),
        judge=ANY.judge("best.safetensors"),
        clip=lambda w: files_of(w).clip,
    output:
        ANY.scores("{method}", "{extent}"),
    log:
        "results/{study}/logs/scores/{method}-{extent}.log",
    benchmark:
        "results/{study}/benchmarks/scores/{method}-{extent}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: costs_of(w).classifier_cores // study_of(w).classifier.processes  # one of its processes
    resources:
        **needs("score"),
        gpu=1,
    params:
        classifier=setting("classifier"),
        clip=lambda w: files_of(w).clip_name,
        embedder=lambda w: files_of(w).embedder,
        image_size=setting("audit.image_size"),
        data=data_in("clip", "detector", "classifier"),
    message:
        "{wildcards.study}: score the images that {wildcards.method} may add"
    script:
        "../scripts/score.py"


rule filter_images:
    input:
        tables=lambda w: files_of(w).candidate_tables(w.method, w.extent),
        scores=lambda w: files_of(w).scores(files_of(w).makers[w.method], w.extent),
        classes=rules.dataset.output.classes,
    output:
        images=ANY.filtered("{method}", "{extent}", "images.parquet"),
        ledger=ANY.filtered("{method}", "{extent}", "ledger.csv"),
        counts=ANY.filtered("{method}", "{extent}", "counts.csv"),
    log:
        "results/{study}/logs/scores/{method}-{extent}-filter.log",
    benchmark:
        "results/{study}/benchmarks/scores/{method}-{extent}-filter.tsv"
    localrule: is_light("filter_images")
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("filter_images"),
    params:
        rule=lambda w: METHODS[w.method].filter and METHODS[w.method].filter.model_dump(),
        leaks=lambda w: files_of(w).leaks,
        ratio=lambda w: files_of(w).enough_for(w.method, w.extent),
    message:
        "{wildcards.study}: filter the images of {wildcards.method} by their scores"
    script:
        "../scripts/filter_images.py"


# Resampling: sets with the target's count per class. A rule's outputs are fixed, so there is one rule for each number of
# sets that a study has.
for place, runs in enumerate(sorted({study.runs for study in STUDIES.values()})):

    rule:
        name:
            numbered("resample", place)
        input:
            classes=rules.dataset.output.classes,
            images=lambda w: files_of(w).image_tables(w.method, w.ratio),
            selection=lambda w: files_of(w).selection_of(w.method),
            together=lambda w, runs=runs: together(w.study, 1, runs),
        output:
            [ANY.added_set("{method}", "{ratio}", k) for k in range(1, runs + 1)],
        log:
            "results/{study}/logs/resample/{method}-x{ratio}.log",
        benchmark:
            "results/{study}/benchmarks/resample/{method}-x{ratio}.tsv"
        wildcard_constraints:
            study=one_of(name for name, study in STUDIES.items() if study.runs == runs),
            method=one_of(name for name, method in METHODS.items() if not method.start.is_union),
        localrule: is_light("resample")
        conda:
            "../../envs/augbench.yaml"
        resources:
            **needs("resample"),
        params:
            seed=setting("seed"),
            order=lambda w: files_of(w).order(w.method),
            allow_fewer=lambda w: files_of(w).allows_fewer(w.method, w.ratio),
        message:
            "{wildcards.study}: draw sets of {wildcards.method}'s images at ratio {wildcards.ratio}"
        script:
            "../scripts/resample.py"

    # Those of a union are drawn from the sets of its methods, run by run.
    rule:
        name:
            numbered("unite", place)
        input:
            classes=rules.dataset.output.classes,
            sets=lambda w: files_of(w).union_sets(w.method, w.ratio),
            together=lambda w, runs=runs: together(w.study, 1, runs),
        output:
            [ANY.added_set("{method}", "{ratio}", k) for k in range(1, runs + 1)],
        log:
            "results/{study}/logs/resample/{method}-x{ratio}.log",
        benchmark:
            "results/{study}/benchmarks/resample/{method}-x{ratio}.tsv"
        wildcard_constraints:
            study=one_of(name for name, study in STUDIES.items() if study.runs == runs),
            method=one_of(name for name, method in METHODS.items() if method.start.is_union),
        localrule: is_light("unite")
        conda:
            "../../envs/augbench.yaml"
        resources:
            **needs("unite"),
        params:
            seed=setting("seed"),
            parts=lambda w: files_of(w).union_parts(w.method, w.ratio),
        message:
            "{wildcards.study}: draw sets of {wildcards.method} at ratio {wildcards.ratio} from those of its methods"
        script:
            "../scripts/unite.py"


# Export: an augmented data set for other software, made only when it is asked for.
rule export:
    input:
        train=ANY.split("train"),
        classes=rules.dataset.output.classes,
        added=lambda w: files_of(w).first_added_set(w.method),
        classifier=lambda w: files_of(w).card_classifier(w.method),
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
