# Classifiers: the same training on each augmented set. One job takes several runs, because starting a
# process is expensive; there is one rule for each stretch of runs, since a rule's outputs are fixed.


for place, (first, last) in enumerate(
    sorted({stretch for study in STUDIES.values() for stretch in stretches(study)})
):
    runs = list(range(first, last + 1))

    rule:
        name:
            f"classify_{place + 1}" if place else "classify"
        input:
            train="results/{study}/dataset/train.parquet",
            validation="results/{study}/dataset/validation.parquet",
            test="results/{study}/dataset/test.parquet",
            classes="results/{study}/dataset/classes.csv",
            added=lambda w, runs=runs: (
                []
                if not METHODS[w.method].start.adds_images
                else expand(
                    "results/{study}/augmentation/{method}/x{ratio}/split-{k}.parquet",
                    k=runs,
                    allow_missing=True,
                )
            ),
            together=lambda w, first=first, last=last: together(w.study, first, last),
        output:
            metrics=expand(
                "results/{study}/classifier/{method}/x{ratio}/run-{k}/metrics.json",
                k=runs,
                allow_missing=True,
            ),
            predictions=expand(
                "results/{study}/classifier/{method}/x{ratio}/run-{k}/predictions.parquet",
                k=runs,
                allow_missing=True,
            ),
            history=expand(
                "results/{study}/classifier/{method}/x{ratio}/run-{k}/history.csv",
                k=runs,
                allow_missing=True,
            ),
            weights=expand(
                "results/{study}/classifier/{method}/x{ratio}/run-{k}/best.safetensors",
                k=runs,
                allow_missing=True,
            ),
        log:
            f"results/{{study}}/logs/classify/{{method}}-x{{ratio}}-{first}-{last}.log",
        benchmark:
            f"results/{{study}}/benchmarks/classify/{{method}}-x{{ratio}}-{first}-{last}.tsv"
        wildcard_constraints:
            study=one_of(
                name
                for name, study in STUDIES.items()
                if (first, last) in stretches(study)
            ),
        conda:
            "../../envs/augbench.yaml"
        threads: lambda w: cpus(study_of(w).classifier)
        resources:
            mem_mb=lambda w, input, attempt: costs.megabytes(
                4000,
                attempt,
                bytes=classifier_bytes(w.study, rows(input.train, *input.added[:1])),
            ),
            runtime=lambda w, input, attempt, runs=len(runs): costs.minutes(
                classifier_seconds(w.study, rows(input.train, *input.added[:1]), runs),
                attempt,
            ),
            gpu=lambda w: study_of(w).classifier.processes,
        params:
            seed=setting("seed"),
            settings=setting("classifier"),
            runs=runs,
            save_minutes=setting("jobs.save_minutes"),
        script:
            "../scripts/classify.py"
