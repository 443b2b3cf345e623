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
            start=lambda w: METHODS[w.method].start,
            code=code("resampling"),
        script:
            "../scripts/resample.py"
