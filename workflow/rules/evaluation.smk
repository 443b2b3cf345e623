# Further test sets: the trained classifiers are scored on them, and nothing is trained again.
rule list_test_set:
    input:
        place=lambda w: ancient(study_of(w).evaluate[w.set].path),
        classes=ANY.classes,
    output:
        ANY.evaluation_images("{set}"),
    log:
        "results/{study}/logs/evaluate/{set}-images.log",
    benchmark:
        "results/{study}/benchmarks/evaluate/{set}-images.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: 1
    resources:
        **needs("list_test_set"),
    params:
        section=lambda w: study_of(w).evaluate[w.set].model_dump(),
        unreadable=setting("target.unreadable"),
        data=lambda w: DATA[w.study].evaluation[w.set] if workflow.is_main_process else None,
    message:
        "{wildcards.study}: list the images of the test set {wildcards.set}"
    script:
        "../scripts/list_test_set.py"


# A rule's outputs are fixed, so there is one rule for each number of runs that a study has.
for place, runs in enumerate(sorted({study.runs for study in STUDIES.values()})):

    rule:
        name:
            numbered("evaluate", place)
        input:
            images=ANY.evaluation_images("{set}"),
            classes=ANY.classes,
            weights=lambda w: files_of(w).weights(w.method, w.ratio),
            added=lambda w: (files_of(w).added_sets(w.method, [w.ratio]) if METHODS[w.method].start.adds_images else []),
            together=lambda w, runs=runs: together(w.study, 1, runs),
        output:
            [ANY.evaluation("{set}", "{method}", "{ratio}", k) for k in range(1, runs + 1)],
        log:
            "results/{study}/logs/evaluate/{set}-{method}-x{ratio}.log",
        benchmark:
            "results/{study}/benchmarks/evaluate/{set}-{method}-x{ratio}.tsv"
        wildcard_constraints:
            study=one_of(name for name, study in STUDIES.items() if study.runs == runs),
        conda:
            "../../envs/augbench.yaml"
        threads: lambda w: costs_of(w).classifier_cores // study_of(w).classifier.processes  # one of its processes
        resources:
            **needs("evaluate"),
            gpu=1,
        params:
            settings=setting("classifier"),
        message:
            "{wildcards.study}: score the classifiers of {wildcards.method} at ratio {wildcards.ratio} on {wildcards.set}"
        script:
            "../scripts/evaluate.py"


rule evaluation:
    input:
        own=lambda w: files_of(w).predictions,
        further=lambda w: files_of(w).evaluations,
    output:
        report(
            ANY.table("evaluation"),
            category="Tables",
            caption="../report/evaluation.rst",
            labels={"study": "{study}", "table": "further test sets"},
        ),
    log:
        "results/{study}/logs/report/evaluation.log",
    benchmark:
        "results/{study}/benchmarks/report/evaluation.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        **needs("evaluation"),
    params:
        methods=setting("methods"),
        sets=lambda w: list(study_of(w).evaluate),
    message:
        "{wildcards.study}: tabulate accuracy and calibration on further test sets"
    script:
        "../scripts/evaluation.py"
