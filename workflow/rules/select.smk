# Selection: a classifier on each candidate's first images; the best validation accuracy chooses.
# Those images are made by the rule generate.


rule screen:
    input:
        classes=rules.dataset.output.classes,
        train="results/{study}/dataset/train.parquet",
        validation="results/{study}/dataset/validation.parquet",
        finetuned=finetuned,
        images=lambda w: shards(w.study, w.method, "screen", "parquet"),
    output:
        "results/{study}/selection/{method}/part-{part}.json",
    log:
        "results/{study}/logs/screen/{method}-{part}.log",
    benchmark:
        "results/{study}/benchmarks/screen/{method}-{part}.tsv"
    conda:
        "../../envs/augbench.yaml"
    threads: lambda w: cpus(study_of(w).classifier)
    resources:
        mem_mb=lambda w, input, attempt: costs.megabytes(
            4000,
            attempt,
            bytes=classifier_bytes(w.study, 2 * rows(input.train)),
        ),
        runtime=lambda w, input, attempt: costs.minutes(
            screening_seconds(w, rows(input.train)), attempt
        ),
        gpu=lambda w: study_of(w).classifier.processes,
    params:
        seed=setting("seed"),
        settings=setting("classifier"),
        parts=lambda w: screening_jobs(w.study, w.method),
        save_minutes=setting("jobs.save_minutes"),
        code=code("classifier", "selection", "distributed"),
    script:
        "../scripts/screen.py"


rule select:
    input:
        screened=lambda w: [
            f"results/{w.study}/selection/{w.method}/part-{i}.json"
            for i in range(screening_jobs(w.study, w.method))
        ],
        finetuned=finetuned,
    output:
        "results/{study}/selection/{method}.json",
    log:
        "results/{study}/logs/screen/select-{method}.log",
    benchmark:
        "results/{study}/benchmarks/screen/select-{method}.tsv"
    localrule: True
    conda:
        "../../envs/augbench.yaml"
    resources:
        mem_mb=lambda w, attempt: costs.megabytes(500, attempt),
        runtime=lambda w, attempt: costs.minutes(0, attempt, least=10),
    params:
        grid=setting("finetune.grid"),
        code=code("selection"),
    script:
        "../scripts/select.py"
