# Classifiers: the same training on each augmented set. One job takes several runs, because starting a process is
# expensive; there is one rule for each stretch of runs, since a rule's outputs are fixed.
for place, (first, last) in enumerate(sorted({stretch for files in FILES.values() for stretch in files.stretches})):
    runs = list(range(first, last + 1))

    rule:
        name:
            numbered("classify", place)
        input:
            train=ANY.split("train"),
            validation=ANY.split("validation"),
            test=ANY.split("test"),
            classes=ANY.classes,
            added=lambda w, runs=runs: (
                [ANY.added_set("{method}", "{ratio}", k) for k in runs] if METHODS[w.method].start.adds_images else []
            ),
            together=lambda w, first=first, last=last: together(w.study, first, last),
        output:
            metrics=[ANY.run("{method}", "{ratio}", k, "metrics.json") for k in runs],
            predictions=[ANY.run("{method}", "{ratio}", k, "predictions.parquet") for k in runs],
            history=[ANY.run("{method}", "{ratio}", k, "history.csv") for k in runs],
            weights=[ANY.run("{method}", "{ratio}", k, "best.safetensors") for k in runs],
        log:
            f"results/{{study}}/logs/classify/{{method}}-x{{ratio}}-{first}-{last}.log",
        benchmark:
            f"results/{{study}}/benchmarks/classify/{{method}}-x{{ratio}}-{first}-{last}.tsv"
        wildcard_constraints:
            study=one_of(name for name, files in FILES.items() if (first, last) in files.stretches),
        conda:
            "../../envs/augbench.yaml"
        threads: lambda w: costs_of(w).classifier_cores
        resources:
            **needs("classify", runs=len(runs)),
            gpu=setting("classifier.processes"),
        params:
            seed=setting("seed"),
            settings=setting("classifier"),
            recipe=recipe,
            runs=runs,
            save_minutes=setting("jobs.save_minutes"),
        message:
            f"{{wildcards.study}}: train classifiers {first} to {last} of {{wildcards.method}} at ratio {{wildcards.ratio}}"
        script:
            "../scripts/classify.py"
