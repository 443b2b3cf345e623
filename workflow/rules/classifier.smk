from augbench.study import prompts
from augbench.study.scores import PROMPT


# Features of images, which probes are fitted on: computed once for all methods, runs and strengths.
rule encode_features:
    input:
        tables=lambda w: files_of(w).featured_tables(w.images),
    output:
        ANY.features("{classifier}", "{images}"),
    log:
        "results/{study}/logs/features/{classifier}/{images}.log",
    benchmark:
        "results/{study}/benchmarks/features/{classifier}/{images}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: costs_of(w).cores_of(w.classifier)
    resources:
        **needs("encode_features"),
        gpu=1,
    params:
        settings=lambda w: classifier_section(w).encoder,
        data=lambda w: DATA[w.study].classifiers[w.classifier] if workflow.is_main_process else None,
    message:
        "{wildcards.study}: compute features of {wildcards.images} for the classifier {wildcards.classifier}"
    script:
        "../scripts/encode_features.py"


# Classifiers: the same training on each augmented set. One job takes several runs, because starting a process is
# expensive; there is one rule for each stretch of runs, since a rule's outputs are fixed, and one more for each stretch
# of the study's further classifiers.
for place, (first, last) in enumerate(sorted({stretch for files in FILES.values() for stretch in files.stretches})):
    for kind, classifier, logged, which in (
        ("classify", MAIN, "classify/", ""),
        ("classify_further", "{classifier}", "classifiers/{classifier}/", " {wildcards.classifier}"),
    ):
        runs = list(range(first, last + 1))

        rule:
            name:
                numbered(kind, place)
            input:
                train=ANY.split("train"),
                validation=ANY.split("validation"),
                test=ANY.split("test"),
                classes=ANY.classes,
                added=lambda w, runs=runs: (
                    [ANY.added_set("{method}", "{ratio}", k) for k in runs]
                    if METHODS[w.method].start.adds_images
                    else []
                ),
                features=lambda w: files_of(w).features_for(classifier_of(w), w.method, w.ratio),
                together=lambda w, first=first, last=last: together(w.study, first, last),
            output:
                metrics=[ANY.run("{method}", "{ratio}", k, "metrics.json", classifier) for k in runs],
                predictions=[ANY.run("{method}", "{ratio}", k, "predictions.parquet", classifier) for k in runs],
                history=[ANY.run("{method}", "{ratio}", k, "history.csv", classifier) for k in runs],
                weights=[ANY.run("{method}", "{ratio}", k, "best.safetensors", classifier) for k in runs],
            log:
                f"results/{{study}}/logs/{logged}{{method}}-x{{ratio}}-{first}-{last}.log",
            benchmark:
                f"results/{{study}}/benchmarks/{logged}{{method}}-x{{ratio}}-{first}-{last}.tsv"
            wildcard_constraints:
                study=one_of(name for name, files in FILES.items() if (first, last) in files.stretches),
            conda:
                "../../envs/augbench.yaml"
            threads: lambda w: costs_of(w).cores_of(classifier_of(w))
            resources:
                **needs(kind, runs=len(runs)),
                gpu=lambda w: classifier_section(w).processes,
            params:
                seed=setting("seed"),
                settings=lambda w: classifier_section(w).model_dump(),
                recipe=recipe,
                runs=runs,
                save_minutes=setting("jobs.save_minutes"),
                featured=lambda w: files_of(w).tables_of_features(classifier_of(w), w.method, w.ratio),
                data=lambda w: DATA[w.study].classifiers[classifier_of(w)] if workflow.is_main_process else None,
            message:
                f"{{wildcards.study}}: train classifiers{which} {first} to {last} of {{wildcards.method}} at ratio {{wildcards.ratio}}"
            script:
                "../scripts/classify.py"


# A baseline without training: CLIP sorts the test images by the names of the classes.
rule zero_shot:
    input:
        test=ANY.split("test"),
        classes=ANY.classes,
        clip=lambda w: files_of(w).clip,
    output:
        metrics=ANY.zero_shot("metrics.json"),
        predictions=ANY.zero_shot("predictions.parquet"),
    log:
        "results/{study}/logs/zero_shot/test.log",
    benchmark:
        "results/{study}/benchmarks/zero_shot/test.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        **needs("zero_shot"),
        gpu=1,
    params:
        clip=lambda w: files_of(w).clip_name,
        prompts=lambda w: prompts.digest(PROMPT),
        data=data_in("clip"),
    message:
        "{wildcards.study}: score CLIP on the test images by the names of the classes"
    script:
        "../scripts/zero_shot.py"
